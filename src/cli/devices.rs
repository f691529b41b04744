//! `pml devices`: where tensors can end up.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::output::{Column, Failure, Output, size_text};
use crate::device::{self, DeviceInfo};

/// List the devices that can hold tensors
#[derive(Args)]
pub(super) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments, out: &mut Output) -> Result<(), Failure> {
    let (devices, absent) = (device::list(), device::absent());
    if arguments.json {
        let devices: Vec<_> = devices
            .iter()
            .map(|device| {
                json!({
                    "name": device.name.to_string(),
                    "kind": device.name.kind.name(),
                    "ordinal": device.name.ordinal,
                    "model": device.model,
                    "unified": device.unified,
                    "total_bytes": device.total_bytes,
                    "free_bytes": device.free_bytes,
                })
            })
            .collect();
        let absent: Vec<_> =
            absent.iter().map(|absence| json!({ "kind": absence.kind.name(), "reason": absence.reason })).collect();
        return out.json(&json!({ "devices": devices, "absent": absent }));
    }
    let columns = [
        Column::Left("device"),
        Column::Left("kind"),
        Column::Left("model"),
        Column::Right("total"),
        Column::Right("free"),
    ];
    out.table(&columns, devices.iter().map(row))?;
    for absence in absent {
        writeln!(out, "{}", absence.reason)?;
    }
    Ok(())
}

fn row(device: &DeviceInfo) -> Vec<String> {
    let size = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), size_text);
    let model = if device.model.is_empty() { "-" } else { &device.model };
    vec![
        device.name.to_string(),
        device.name.kind.name().to_owned(),
        model.to_owned(),
        size(device.total_bytes),
        size(device.free_bytes),
    ]
}
