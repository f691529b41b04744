//! Models by name on the command line, and several processes that change our own store at once.

mod models;
mod stores;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use pml::tensor::Dtype;
use serde_json::Value;
use stores::{COMMIT, Stores};

/// Stores, and a model that is in them.
struct Scene {
    stores: Stores,
    file: String,
}

impl Scene {
    fn new() -> Scene {
        let stores = Stores::new();
        let file = stores.path("model.gguf");
        models::write_llama(&file);
        let content = fs::read(&file).unwrap();
        stores.add_to_ollama("llama3", "8b", &content);
        stores.add_to_hub("org/name", COMMIT, "name-Q8_0.gguf", &content);
        stores.add_ref("org/name", "main", COMMIT);
        stores.add_to_lm_studio("maker/model", "model-F16.gguf", &content);
        Scene { file: file.to_str().unwrap().to_owned(), stores }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
        for name in ["HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"] {
            command.env_remove(name);
        }
        command.args(arguments).envs(self.stores.variables());
        command
    }

    fn pml(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What a command that has to succeed prints.
    #[track_caller]
    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.pml(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*complaint), (Some(0), ""), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.succeed(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// The one line of a command that has to fail.
    #[track_caller]
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.pml(arguments);
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
        assert!(complaint.starts_with("pml: ") && complaint.matches('\n').count() == 1, "{complaint}");
        complaint
    }

    fn names(&self) -> Vec<String> {
        let list = self.json(&["zoo", "list"]);
        assert_eq!(list["remarks"], serde_json::json!([]), "{list}");
        let name = |model: &Value| model["reference"].as_str().unwrap().to_owned();
        list["models"].as_array().unwrap().iter().map(name).collect()
    }
}

#[test]
fn list_shows_every_store() {
    let scene = Scene::new();
    assert_eq!(scene.names(), ["huggingface://org/name:main", "ollama://llama3:8b", "lm-studio://maker/model:F16"]);
    let printed = scene.succeed(&["zoo", "list"]);
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["model", "size", "store", "kept"]);
    assert_eq!(lines[2], ["llama3:8b", "2.63", "MiB", "ollama"]);
    // What is broken is told beside the list.
    fs::remove_file(scene.stores.add_to_ollama("broken", "latest", b"x")).unwrap();
    let output = scene.pml(&["zoo", "list"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), printed);
    let remark = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && remark.starts_with("pml: ollama://broken:latest is left out: "), "{remark}");
}

#[test]
fn find_tells_what_is_known() {
    let scene = Scene::new();
    let found = scene.json(&["zoo", "find", "llama3", "8b"]);
    let expected =
        [("name", "llama3"), ("version", "8b"), ("store", "ollama"), ("architecture", "llama"), ("dtype", "F16")];
    for (key, value) in expected {
        assert_eq!(found[key], value, "{found}");
    }
    assert_eq!(found["files"][0]["bytes"], fs::metadata(&scene.file).unwrap().len());
    assert_eq!((&found["context_length"], &found["license"]), (&Value::Null, &Value::Null));
    let printed = scene.succeed(&["zoo", "find", "org/name:Q8_0"]);
    assert!(printed.contains("reference     huggingface://org/name:main\n"), "{printed}");
    assert!(printed.contains("size          2.63 MiB in 1 file\n"), "{printed}");
    let complaint = scene.fail(&["zoo", "find", "lama3"]);
    assert!(complaint.contains("looked in pml ") && complaint.contains("near it: llama3"), "{complaint}");
}

#[test]
fn every_command_takes_a_name() {
    let scene = Scene::new();
    let out = scene.stores.path("out.gguf");
    let out = out.to_str().unwrap();
    for name in ["llama3:8b", "org/name", "maker/model:F16"] {
        let by_path = |arguments: &[&str]| scene.succeed(&[arguments, &[&scene.file]].concat());
        let by_name = |arguments: &[&str]| scene.succeed(&[arguments, &[name]].concat());
        assert_eq!(by_name(&["hash"]), by_path(&["hash"]));
        assert_eq!(by_name(&["verify"]), by_path(&["verify"]));
        assert_eq!(
            by_name(&["info"]).lines().skip(3).collect::<Vec<_>>(),
            by_path(&["info"]).lines().skip(3).collect::<Vec<_>>()
        );
        let loaded = scene.json(&["load", name, "--budget", "1MiB", "--unload", "lru", "--device", "cpu"]);
        assert!(loaded["peak_charged_bytes"].as_u64().unwrap() <= 1 << 20, "{loaded}");
        let told = scene.pml(&["load", name, "--verbose", "--device", "cpu"]);
        assert_eq!(String::from_utf8(told.stderr).unwrap().matches("blk.").count(), 4);
        let plan = scene.json(&["plan", name, "--memory", "1GiB", "--device", "cpu"]);
        let reference = scene.json(&["zoo", "find", name])["reference"].clone();
        assert_eq!((&plan["file"], &plan["command"][2]), (&reference, &reference));
        assert!(scene.json(&["demo", name, "--device", "cpu"])["budget_bytes"].is_u64());
        scene.succeed(&["convert", name, out, "--dtype", "q8_0"]);
        assert_eq!(scene.json(&["info", out])["tensors"].as_array().unwrap().len(), 27);
    }
    for command in ["info", "load", "plan", "demo", "verify", "hash"] {
        let complaint = scene.fail(&[command, "nothing.gguf"]);
        assert!(complaint.starts_with("pml: 'nothing.gguf': no file or model of that name; looked in"), "{complaint}");
        let complaint = scene.fail(&[command, "./nothing.gguf"]);
        assert!(complaint.starts_with("pml: ./nothing.gguf: no file of that name"), "{complaint}");
        // What no name can be is a path.
        let complaint = scene.fail(&[command, "sub/../nothing.gguf"]);
        assert!(complaint.starts_with("pml: sub/../nothing.gguf: no file of that name"), "{complaint}");
    }
}

#[test]
fn our_own_store_is_filled_and_emptied() {
    let scene = Scene::new();
    let added = scene.succeed(&["zoo", "add", &scene.file, "--name", "team/mine", "--copy", "--pin"]);
    assert_eq!(added, "pml://team/mine:latest: 2.63 MiB in 1 file, copied\n");
    scene.succeed(&["zoo", "add", "llama3"]);
    assert_eq!(scene.names()[..2], ["pml://llama3:8b", "pml://team/mine:latest"]);
    // It names the file that Ollama has: nobody is asked which is meant.
    assert_eq!(scene.json(&["zoo", "find", "llama3"])["store"], "pml");
    let listed = scene.succeed(&["zoo", "list"]);
    assert!(listed.lines().any(|line| line.starts_with("team/mine:latest") && line.ends_with("pinned")), "{listed}");
    assert_eq!(scene.succeed(&["zoo", "unpin", "team/mine"]), "unpinned pml://team/mine:latest\n");
    assert_eq!(scene.json(&["zoo", "find", "team/mine"])["is_pinned"], false);
    assert_eq!(scene.succeed(&["zoo", "pin", "team/mine", "latest"]), "pinned pml://team/mine:latest\n");
    assert_eq!(scene.succeed(&["zoo", "verify", "team/mine"]), "ok: 1 file, 2.63 MiB\n");
    assert_eq!(scene.json(&["zoo", "verify", "llama3"])["files"], 1);
    models::write_blocks(Path::new(&scene.file), 5, 256, Dtype::F16);
    let complaint = scene.fail(&["zoo", "add", &scene.file, "--copy", "--name", "x", "--limit", "3MiB"]);
    assert!(complaint.contains("pinned"), "{complaint}");
    scene.succeed(&["zoo", "unpin", "team/mine"]);
    scene.succeed(&["zoo", "add", &scene.file, "--copy", "--name", "x", "--limit", "4MiB"]);
    assert_eq!(scene.names()[..2], ["pml://llama3:8b", "pml://x:latest"]);
    assert_eq!(scene.succeed(&["zoo", "rm", "x"]), "removed pml://x:latest\n");
    let removed = scene.json(&["zoo", "rm", "pml://llama3", "8b"]);
    assert_eq!(removed, serde_json::json!({ "done": "removed", "reference": "pml://llama3:8b" }));
    let complaint = scene.fail(&["zoo", "rm", "llama3"]);
    assert!(complaint.contains("another program's"), "{complaint}");
    assert_eq!(scene.names().len(), 3);
}

#[test]
fn two_processes_change_the_store_at_once() {
    let rounds: u32 = std::env::var("PML_TEST_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(25);
    let scene = Scene::new();
    let small = |name: &str, blocks| {
        let path = scene.stores.path(name);
        models::write_blocks(&path, blocks, 32, Dtype::F16);
        path.to_str().unwrap().to_owned()
    };
    let files = [small("one.gguf", 1), small("two.gguf", 2)];
    let is_over = AtomicBool::new(false);
    let run = |arguments: &[&str]| {
        let output = scene.pml(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        // The other one may have removed it first.
        let is_gone = complaint.contains("no model pml://") || complaint.contains("no file or model of that name");
        assert!(output.status.success() || arguments[1] == "rm" && is_gone, "{arguments:?}: {complaint}");
    };
    std::thread::scope(|scope| {
        let workers = files.each_ref().map(|file| {
            scope.spawn(|| {
                for round in 0..rounds {
                    let name = ["a", "b", "c"][round as usize % 3];
                    let how: &[&str] = if round % 4 == 3 { &[] } else { &["--copy"] };
                    run(&[&["zoo", "add", file, "--name", name, "--limit", "100KiB"], how].concat());
                    if round % 2 == 1 {
                        run(&["zoo", "rm", name]);
                    }
                }
            })
        });
        let reader = scope.spawn(|| {
            let zoo = scene.stores.zoo();
            let mut seen = 0;
            while !is_over.load(Ordering::SeqCst) {
                let list = zoo.list();
                assert!(list.remarks.is_empty(), "{:?}", list.remarks);
                seen = seen.max(list.models.iter().filter(|model| model.store() == "pml").count());
                // It may be removed just now, but is never found in part.
                for name in ["pml://a", "pml://b", "pml://c"] {
                    let error = zoo.find(name, None).err().map(|error| error.to_string()).unwrap_or_default();
                    assert!(error.is_empty() || error.contains("no file or model of that name"), "{error}");
                }
            }
            seen
        });
        let outcomes = workers.map(|worker| worker.join());
        is_over.store(true, Ordering::SeqCst);
        assert!(reader.join().unwrap() > 0);
        for outcome in outcomes {
            outcome.unwrap();
        }
    });
    for name in scene.names().iter().filter(|name| name.starts_with("pml://")) {
        scene.succeed(&["zoo", "verify", name]);
        scene.succeed(&["zoo", "rm", name]);
    }
    let left = |folder: &str| fs::read_dir(scene.stores.own().join(folder)).unwrap().count();
    assert_eq!((left("manifests"), left("blobs")), (0, 0));
}

#[test]
fn an_interrupted_process_leaves_nothing_that_lasts() {
    let rounds: u32 = std::env::var("PML_TEST_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(10);
    let scene = Scene::new();
    let mut interrupted = 0;
    for round in 0..rounds {
        let mut child = scene
            .command(&["zoo", "add", &scene.file, "--copy", "--name", "killed"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // As soon as there is something that is not whole, or a little later.
        let is_copying = || {
            let names = fs::read_dir(scene.stores.own().join("blobs")).into_iter().flatten().flatten();
            names.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().ends_with(".part"))
        };
        while !is_copying() && child.try_wait().unwrap().is_none() {}
        std::thread::sleep(std::time::Duration::from_micros(u64::from(round) * 70 % 500));
        child.kill().unwrap();
        interrupted += u32::from(!child.wait().unwrap().success());
        assert!(scene.stores.zoo().list().remarks.is_empty());
    }
    assert!(interrupted > 0);
    scene.succeed(&["zoo", "add", &scene.file, "--copy", "--name", "killed"]);
    scene.succeed(&["zoo", "verify", "killed"]);
    scene.succeed(&["zoo", "rm", "killed"]);
    assert_eq!(fs::read_dir(scene.stores.own().join("blobs")).unwrap().count(), 0);
}

#[test]
fn stores_are_where_their_programs_say() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().to_str().unwrap();
    let looked = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
        let others =
            ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "OLLAMA_MODELS"];
        for name in others.into_iter().chain(["PML_ZOO"]) {
            command.env_remove(name);
        }
        command.env("HOME", home).envs(variables.iter().copied());
        let output = command.args(["zoo", "find", "nothing"]).output().unwrap();
        String::from_utf8(output.stderr).unwrap().replace(home, "~")
    };
    let has = |variables: &[(&str, &str)], places: &[&str]| {
        let text = looked(variables);
        for place in places {
            assert!(text.contains(&format!(" {place} (not there)")), "{variables:?}: no {place} in {text}");
        }
    };
    has(&[], &["pml ~/.local/share/pml/zoo", "huggingface ~/.cache/huggingface/hub", "ollama ~/.ollama/models"]);
    has(&[], &["lm-studio ~/.lmstudio/models"]);
    // It may be there on the machine that tests.
    assert!(looked(&[]).contains(", ollama /usr/share/ollama/.ollama/models"));
    has(&[("XDG_DATA_HOME", "/d"), ("XDG_CACHE_HOME", "/c")], &["pml /d/pml/zoo", "huggingface /c/huggingface/hub"]);
    let (hub, old, hf_home) = (("HF_HUB_CACHE", "/a"), ("HUGGINGFACE_HUB_CACHE", "/b"), ("HF_HOME", "~/c"));
    has(&[hf_home], &["huggingface ~/c/hub"]);
    has(&[hf_home, old], &["huggingface /b"]);
    has(&[hf_home, old, hub], &["huggingface /a"]);
    has(&[("OLLAMA_MODELS", "/o"), ("PML_ZOO", "/z")], &["ollama /o", "pml /z"]);
    assert!(!looked(&[("OLLAMA_MODELS", "/o")]).contains("/usr/share"));
    has(&[("OLLAMA_MODELS", " \"/o p\" ")], &["ollama /o p"]);
    let variables = [("BASE", "/base"), ("HF_HOME", "$BASE/${BASE}x/$NOT_SET")];
    has(&variables, &["huggingface /base//basex/$NOT_SET/hub"]);
    // LM Studio: the older home where it is there, what the pointer says, and what the settings say.
    fs::create_dir_all(folder.path().join(".cache/lm-studio")).unwrap();
    has(&[], &["lm-studio ~/.cache/lm-studio/models"]);
    let studio = folder.path().join("studio");
    fs::create_dir_all(&studio).unwrap();
    fs::write(folder.path().join(".lmstudio-home-pointer"), format!("{}\n", studio.display())).unwrap();
    has(&[], &["lm-studio ~/studio/models"]);
    let padding = " ".repeat(1 << 20);
    fs::write(studio.join("settings.json"), format!(r#"{{{padding}"downloadsFolder":"/models"}}"#)).unwrap();
    has(&[], &["lm-studio /models"]);
}
