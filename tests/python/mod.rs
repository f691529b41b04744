//! The Python that has what others read models with.

use std::process::Command;

/// The Python that PML_TEST_PYTHON names; says that the test is skipped where it names none.
pub fn python(test: &str) -> Option<Command> {
    let named = std::env::var_os("PML_TEST_PYTHON").map(Command::new);
    if named.is_none() {
        println!("skipped: {test}: PML_TEST_PYTHON is not set");
    }
    named
}
