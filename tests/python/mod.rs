//! The Python that has what others read models with.

use std::process::Command;

/// The Python that PML_TEST_PYTHON names, if it has a NumPy that knows read-only arrays of DLPack; else says that the test is
/// skipped.
pub fn with_numpy(test: &str) -> Option<Command> {
    let Some(python) = std::env::var_os("PML_TEST_PYTHON") else {
        println!("skipped: {test}: PML_TEST_PYTHON is not set");
        return None;
    };
    let knows = "import numpy; assert tuple(map(int, numpy.__version__.split('.')[:2])) >= (2, 1)";
    if !Command::new(&python).args(["-c", knows]).output().unwrap().status.success() {
        println!("skipped: {test}: NumPy 2.1 or later is not there");
        return None;
    }
    Some(Command::new(python))
}
