//! PyPI's gguf, timed by the Python program that runs it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::Open;

const PROGRAM: &str = include_str!("gguf_reader.py");

/// A Python that answers line by line; it ends when its input does.
pub struct Python {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Python {
    /// Starts a program, which says its version first.
    pub fn start(program: &str) -> Result<(Python, String), String> {
        let python = std::env::var_os("PML_BENCH_PYTHON").ok_or("it could not be installed")?;
        let mut process = Command::new(python)
            .args(["-c", program])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        let questions = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().ok_or("no answers")?);
        let mut python = Python { process, questions, answers };
        let version = python.answer();
        if version.is_empty() { Err("it could not be started".to_owned()) } else { Ok((python, version)) }
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer from Python");
        line.trim().to_owned()
    }

    /// What the program says to a line.
    pub fn ask(&mut self, line: &[u8]) -> String {
        let line = [line, b"\n"].concat();
        self.questions.as_mut().expect("a running Python").write_all(&line).expect("a line for Python");
        self.answer()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.questions.take());
        // It has nothing left to do, and nobody asks how it ended.
        let _ = self.process.wait();
    }
}

pub fn find() -> Result<(String, Open), String> {
    let (mut python, version) = Python::start(PROGRAM)?;
    let how = format!("gguf {version}, `GGUFReader`, timed inside Python, its import not counted");
    let open = move |path: &Path| python.ask(path.as_os_str().as_bytes()).parse().expect("seconds from Python");
    Ok((how, Box::new(open)))
}
