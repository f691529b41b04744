//! The report: a table for each part, and charts.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use crate::machine::{self, Ticks};
use crate::plot::Chart;

/// What was measured so far.
pub struct Report {
    begun: Option<Ticks>,
    sections: Vec<Section>,
}

struct Section {
    title: String,
    notes: Vec<String>,
    rows: Vec<Row>,
    chart: Option<Chart>,
}

/// A line of a table. Ours is empty where nothing was measured.
#[derive(Default)]
pub struct Row {
    pub what: String,
    pub ours: String,
    /// The limit or the peer, with its figure.
    pub other: String,
    /// Ours by the other's, in time.
    pub ratio: Option<f64>,
    pub how: String,
}

impl Report {
    pub fn new() -> Report {
        Report { begun: Ticks::now(), sections: Vec::new() }
    }

    /// Begins a part.
    pub fn section(&mut self, title: &str) {
        eprintln!("{title}");
        self.sections.push(Section { title: title.to_owned(), notes: Vec::new(), rows: Vec::new(), chart: None });
    }

    /// Says how the part is measured, or what was seen besides.
    pub fn note(&mut self, text: &str) {
        self.last().notes.push(text.to_owned());
    }

    pub fn row(&mut self, row: Row) {
        eprintln!("  {}: {} | {} | {}", row.what, row.ours, row.other, row.ratio_text());
        self.last().rows.push(row);
    }

    pub fn chart(&mut self, chart: Chart) {
        self.last().chart = Some(chart);
    }

    fn last(&mut self) -> &mut Section {
        self.sections.last_mut().expect("a section")
    }

    /// Writes the report and its charts into a folder.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("report.md"), self.text())?;
        for chart in self.sections.iter().filter_map(|section| section.chart.as_ref()) {
            fs::write(folder.join(chart.file), chart.svg())?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = String::from("# libpml measured\n\n");
        text.push_str("`benches/run` wrote this, on ");
        text.push_str(&machine::description());
        if let Some(others) = self.begun.and_then(Ticks::others_since) {
            // Writing to a string cannot fail.
            let _ = write!(text, "; other programs had {others:.0} % of the processor meanwhile");
        }
        text.push_str(
            ".\n\nRatios are times, ours by the other's: below 1 is faster. Both sides of a ratio ran in turn in one \
             run, and it is the median of the rounds' ratios; ratios travel better than times.\n",
        );
        for section in &self.sections {
            section.write_to(&mut text);
        }
        text
    }
}

impl Section {
    fn write_to(&self, text: &mut String) {
        let mut add = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        add(&format!("\n## {}\n", self.title));
        for note in &self.notes {
            add(&format!("{note}\n"));
        }
        add("| what | ours | limit or peer | ratio | how |\n|---|---|---|---|---|");
        for row in &self.rows {
            let mut line = String::new();
            for cell in [&row.what, &row.ours, &row.other, &row.ratio_text(), &row.how] {
                // Writing to a string cannot fail.
                let _ = write!(line, "| {} ", cell.replace('|', "\\|"));
            }
            add(&format!("{line}|"));
        }
        if let Some(chart) = &self.chart {
            add(&format!("\n![{}]({})", chart.title, chart.file));
        }
    }
}

impl Row {
    fn ratio_text(&self) -> String {
        match self.ratio {
            None => String::new(),
            Some(ratio) if ratio < 0.1 => format!("1/{:.0}", ratio.recip()),
            Some(ratio) => format!("{ratio:.2}"),
        }
    }
}
