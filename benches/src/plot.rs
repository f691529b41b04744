//! Charts that can be read on light and on dark pages: no background, and colours of middling brightness.

use std::ops::Range;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (980, 420);
/// Of which the chart takes this much, and the names of its lines the rest.
const CHART_WIDTH: i32 = 660;
const GREY: RGBColor = RGBColor(118, 118, 118);
const COLOURS: [RGBColor; 5] = [
    RGBColor(47, 129, 247),
    RGBColor(118, 118, 118),
    RGBColor(217, 119, 6),
    RGBColor(34, 153, 84),
    RGBColor(163, 113, 247),
];

/// Lines over two axes.
pub struct Chart {
    /// Its name in the report's folder.
    pub file: &'static str,
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

pub struct Axis {
    name: &'static str,
    is_logarithmic: bool,
}

pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Axis {
    pub fn linear(name: &'static str) -> Axis {
        Axis { name, is_logarithmic: false }
    }

    pub fn logarithmic(name: &'static str) -> Axis {
        Axis { name, is_logarithmic: true }
    }

    /// The range that shows all of these with room around them; from zero on where the axis is linear.
    fn range(&self, values: impl Iterator<Item = f64>) -> Range<f64> {
        let (least, most) = values.fold((f64::MAX, 0.0), |(least, most), value| (value.min(least), value.max(most)));
        if self.is_logarithmic { least / 1.5..most * 1.5 } else { 0.0..most * 1.2 }
    }
}

impl Line {
    pub fn new(name: &str) -> Line {
        Line { name: name.to_owned(), points: Vec::new() }
    }
}

type Surface<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

impl Chart {
    pub fn svg(&self) -> String {
        let mut text = String::new();
        {
            let surface = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            let (surface, names) = surface.split_horizontally(CHART_WIDTH);
            self.draw_names(&names);
            let points = || self.lines.iter().flat_map(|line| &line.points);
            let x = self.x.range(points().map(|point| point.0));
            let y = self.y.range(points().map(|point| point.1));
            match (self.x.is_logarithmic, self.y.is_logarithmic) {
                (false, false) => self.draw(&surface, x, y),
                (true, false) => self.draw(&surface, x.log_scale(), y),
                (false, true) => self.draw(&surface, x, y.log_scale()),
                (true, true) => self.draw(&surface, x.log_scale(), y.log_scale()),
            }
            surface.present().expect("a drawn chart");
        }
        text
    }

    fn draw<X, Y>(&self, surface: &Surface<'_>, x: X, y: Y)
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(surface)
            .margin(12)
            .margin_right(24)
            .x_label_area_size(46)
            .y_label_area_size(64)
            .caption(self.title, font(20))
            .build_cartesian_2d(x, y)
            .expect("a drawn chart");
        chart
            .configure_mesh()
            .axis_style(GREY)
            .bold_line_style(GREY.mix(0.25))
            .light_line_style(TRANSPARENT)
            .label_style(font(14))
            .axis_desc_style(font(15))
            .x_labels(8)
            .y_labels(8)
            .x_label_formatter(&|value| number(*value))
            .y_label_formatter(&|value| number(*value))
            .x_desc(self.x.name)
            .y_desc(self.y.name)
            .draw()
            .expect("a drawn chart");
        for (line, colour) in self.coloured() {
            let points = line.points.iter().copied();
            chart.draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3)).expect("a drawn chart");
        }
    }

    /// The lines' names, beside the chart, where no line runs through them.
    fn draw_names(&self, surface: &Surface<'_>) {
        for ((line, colour), y) in self.coloured().zip((60..).step_by(24)) {
            let stroke = PathElement::new([(0, y), (18, y)], colour.stroke_width(3));
            surface.draw(&stroke).expect("a drawn chart");
            let name = Text::new(line.name.as_str(), (26, y - 7), font(14));
            surface.draw(&name).expect("a drawn chart");
        }
    }

    /// The lines that have points, and their colours.
    fn coloured(&self) -> impl Iterator<Item = (&Line, RGBColor)> {
        self.lines.iter().zip(COLOURS).filter(|(line, _)| !line.points.is_empty())
    }
}

fn font(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&GREY)
}

/// A number with as many digits as a tick needs.
fn number(value: f64) -> String {
    let text = if value >= 10.0 { format!("{value:.0}") } else { format!("{value:.3}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}
