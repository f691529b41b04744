//! PyPI's gguf, timed by the Python program that runs it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Open;

const PROGRAM: &str = include_str!("gguf_reader.py");

/// A Python that waits for paths; it ends when its input does.
struct Python {
    process: Child,
    paths: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Result<Python, String> {
        let python = std::env::var_os("PML_BENCH_PYTHON").ok_or("it could not be installed")?;
        let mut process = Command::new(python)
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let paths = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().ok_or("no answers")?);
        Ok(Python { process, paths, answers })
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer from Python");
        line.trim().to_owned()
    }

    fn open(&mut self, path: &Path) -> f64 {
        let line = [path.as_os_str().as_bytes(), b"\n"].concat();
        self.paths.as_mut().expect("a running Python").write_all(&line).expect("a path for Python");
        self.answer().parse().expect("seconds from Python")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.paths.take());
        // It has nothing left to do, and nobody asks how it ended.
        let _ = self.process.wait();
    }
}

pub fn find() -> Result<(String, Open), String> {
    let mut python = Python::start()?;
    let version = python.answer();
    if version.is_empty() {
        return Err("it could not be started".to_owned());
    }
    let how = format!("gguf {version}, `GGUFReader`, timed inside Python, its import not counted");
    Ok((how, Box::new(move |path: &Path| python.open(path))))
}
