//! Paths that lead to no model: folders, pipes, nothing, files that may not be read.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use pml::Status;

use crate::common::*;

fn mode(path: &Path, bits: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).expect("permissions of one's own file");
}

#[test]
fn an_empty_folder_is_no_model() {
    let folder = folder();
    let error = error_of(open_path(folder.path()), "folder");
    let name = folder.path().display().to_string();
    check_error(&error, Status::Unsupported, &[&name, "a directory", "a regular file"], "folder");
}

#[test]
fn a_pipe_is_no_model_and_does_not_block() {
    let folder = folder();
    let path = folder.path().join("pipe.gguf");
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path without NUL");
    // SAFETY: the path is a C string that lives through the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let (sender, receiver) = mpsc::channel();
    let opened = path.clone();
    std::thread::spawn(move || sender.send(open_path(&opened).err()));
    let error = receiver.recv_timeout(Duration::from_mins(1)).expect("opening a pipe blocks").expect("it is no model");
    check_error(&error, Status::Unsupported, &["pipe.gguf", "a FIFO", "a regular file"], "pipe");
}

#[test]
fn a_device_is_no_model() {
    let error = error_of(open_path(Path::new("/dev/null")), "device");
    check_error(&error, Status::Unsupported, &["/dev/null", "a device", "a regular file"], "device");
}

#[test]
fn a_missing_file_is_not_found() {
    let folder = folder();
    for name in ["missing.gguf", "no folder/missing.gguf", "two\nlines.gguf"] {
        let error = error_of(open_path(&folder.path().join(name)), name);
        check_error(&error, Status::NotFound, &[&name.replace('\n', r"\n"), "no file"], name);
    }
    let error = error_of(open_path(Path::new("")), "empty path");
    check_error(&error, Status::NotFound, &[], "empty path");
    let file = write(&folder, "file.gguf", b"");
    let error = error_of(open_path(&file.join("below.gguf")), "below a file");
    check_error(&error, Status::Io, &["below.gguf"], "below a file");
}

#[test]
fn a_file_that_may_not_be_read_is_denied() {
    const CHILD: &str = "PML_TEST_DENIED_FILE";
    if let Some(path) = std::env::var_os(CHILD) {
        // The child: another user than the file's owner.
        let error = error_of(open_path(Path::new(&path)), "denied");
        check_error(&error, Status::AccessDenied, &["secret.gguf", "access denied"], "denied");
        return;
    }
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: only root can become another user");
        return;
    }
    let folder = folder();
    let path = write(&folder, "secret.gguf", &small_file().bytes());
    mode(folder.path(), 0o755);
    mode(&path, 0o600);
    let program = std::env::current_exe().expect("the path of this program");
    let output = Command::new(program)
        .args(["--exact", "places::a_file_that_may_not_be_read_is_denied"])
        .env(CHILD, &path)
        .uid(65_534)
        .gid(65_534)
        .output();
    match output {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
        Err(error) => println!("skipped: another user cannot run this program: {error}"),
    }
}
