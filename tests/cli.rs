//! The `pml` command, run as a program.

mod c_compiler;
mod doubles;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use doubles::{Kind, Variant, folder};
use pml::tensor::Dtype;
use serde_json::Value;
use sha2::{Digest, Sha256};

const PRESETS: [&str; 9] = ["tiny", "1b", "8b", "70b", "moe", "moe-19k", "rnn", "cnn", "encoder-decoder"];
const KINDS: [Kind; 2] = [Kind::Cuda, Kind::Hip];
const READERS: [&str; 4] = ["auto", "mmap", "read", "direct"];

fn pml(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pml")).args(arguments).output().expect("pml starts")
}

/// What a command that has to succeed prints.
fn succeed(arguments: &[&str]) -> String {
    let output = pml(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {complaint}");
    assert_eq!(complaint, "", "{arguments:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn json(arguments: &[&str]) -> Value {
    let text = succeed(&[arguments, &["--json"]].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// What a command that has to fail prints, and its one line on standard error.
fn fail(arguments: &[&str]) -> (String, String) {
    let output = pml(arguments);
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
    let line = complaint.strip_suffix('\n').expect("a whole line");
    assert!(line.starts_with("pml: ") && !line.contains('\n'), "{arguments:?}: {complaint}");
    (String::from_utf8(output.stdout).expect("UTF-8"), line.to_owned())
}

/// A folder that is gone after the test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    /// Writes a synthetic model; its path.
    fn synth(&self, name: &str, arguments: &[&str]) -> String {
        let path = self.path(name);
        succeed(&[&["synth", &path], arguments].concat());
        path
    }

    fn tiny(&self) -> String {
        self.synth("tiny.gguf", &["--preset", "tiny"])
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} is a list in {value}"))
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("{key} is a whole number in {value}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is a string in {value}"))
}

fn named<'a>(items: &'a [Value], name: &str) -> &'a Value {
    items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("there is {name}"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

/// Overwrites bytes of a tensor, `skip` bytes behind its start.
fn damage(path: &str, tensor: &str, skip: u64, bytes: &[u8]) {
    let info = json(&["info", path]);
    let start = number(named(list(&info, "tensors"), tensor), "offset") + skip;
    let mut content = std::fs::read(path).expect("the model");
    content[start as usize..][..bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, content).expect("written");
}

#[test]
fn info_tells_layers_and_tensors() {
    let folder = Folder::new();
    let path = folder.tiny();
    let info = json(&["info", &path]);
    assert_eq!((text(&info, "format"), number(&info, "version")), ("gguf", 3));
    assert_eq!(info["architecture"], "llama");
    assert!(number(&info, "metadata_count") > 10);
    let (layers, tensors) = (list(&info, "layers"), list(&info, "tensors"));
    let names: Vec<&str> = layers.iter().map(|layer| text(layer, "name")).collect();
    assert_eq!(names, ["token_embd", "blk.0", "blk.1", "blk.2", "blk.3", "output"]);
    for layer in layers {
        assert_eq!(keys(layer), ["name", "bytes", "tensors"]);
        let members: Vec<&Value> = tensors.iter().filter(|tensor| tensor["layer"] == layer["name"]).collect();
        assert_eq!(number(layer, "tensors"), members.len() as u64);
        assert_eq!(number(layer, "bytes"), members.iter().map(|tensor| number(tensor, "bytes")).sum::<u64>());
    }
    for tensor in tensors {
        assert_eq!(keys(tensor), ["name", "dtype", "stored_dtype", "shape", "layer", "bytes", "offset", "shard"]);
    }
    let gate = named(tensors, "blk.2.ffn_gate.weight");
    assert_eq!(gate["shape"], serde_json::json!([768, 256]));
    assert_eq!((text(gate, "dtype"), number(gate, "bytes"), number(gate, "shard")), ("F16", 768 * 256 * 2, 0));
    let last = named(tensors, "output.weight");
    assert!(number(last, "offset") + number(last, "bytes") <= std::fs::metadata(&path).expect("a file").len());
    let printed = succeed(&["info", &path]);
    assert!(printed.contains("blk.3.ffn_down.weight") && printed.contains("384.00 KiB"), "{printed}");
    assert!(!printed.contains("general.architecture"));
}

#[test]
fn info_tells_a_folder_of_safetensors() {
    use pml::format::safetensors::write::HeaderWriter;

    let folder = tempfile::tempdir().expect("a folder");
    let mut header = HeaderWriter::new();
    header.add_tensor("model.layers.0.mlp.weight", Dtype::BF16, &[2, 3]).expect("a tensor");
    let mut data = header.create(&folder.path().join("model.safetensors")).expect("a file");
    data.leave_hole().and_then(|()| data.finish()).expect("a whole file");
    std::fs::write(folder.path().join("config.json"), r#"{"model_type":"llama"}"#).expect("settings");
    let path = folder.path().to_str().expect("text");
    let info = json(&["info", path]);
    assert_eq!((text(&info, "format"), &info["version"]), ("safetensors", &Value::Null));
    assert_eq!(info["architecture"], "llama");
    assert_eq!(text(&list(&info, "tensors")[0], "dtype"), "BF16");
    let printed = succeed(&["info", path]);
    assert!(printed.starts_with("format        safetensors\n"), "{printed}");
}

#[test]
fn info_shortens_metadata_unless_told_otherwise() {
    let folder = Folder::new();
    let path = folder.tiny();
    let brief = json(&["info", &path, "--metadata"]);
    let full = json(&["info", &path, "--metadata", "--full"]);
    let find = |info: &Value, key: &str| {
        list(info, "metadata").iter().find(|entry| entry["key"] == key).cloned().expect("the key")
    };
    assert_eq!(list(&brief, "metadata").len() as u64, number(&brief, "metadata_count"));
    let blocks = find(&brief, "llama.block_count");
    assert_eq!(keys(&blocks), ["key", "type", "value"]);
    assert_eq!((text(&blocks, "type"), number(&blocks, "value")), ("u32", 4));
    assert_eq!(find(&brief, "llama.attention.layer_norm_rms_epsilon")["value"], 1e-5);
    let tokens = find(&brief, "tokenizer.ggml.tokens");
    assert_eq!(keys(&tokens), ["key", "type", "element_type", "count", "value"]);
    assert_eq!((text(&tokens, "type"), text(&tokens, "element_type")), ("array", "string"));
    assert_eq!((number(&tokens, "count"), list(&tokens, "value").len()), (512, 8));
    assert_eq!(list(&find(&full, "tokenizer.ggml.tokens"), "value").len(), 512);
    let printed = succeed(&["info", &path, "--metadata"]);
    assert!(printed.contains("string[512]") && printed.contains("…]"), "{printed}");
}

#[test]
fn hashes_are_those_of_the_bytes_whatever_the_reader() {
    let folder = Folder::new();
    let path = folder.tiny();
    let content = std::fs::read(&path).expect("the model");
    let info = json(&["info", &path]);
    let expected = list(&info, "tensors").iter().map(|tensor| {
        let bytes = &content[number(tensor, "offset") as usize..][..number(tensor, "bytes") as usize];
        let hash: Vec<String> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (text(tensor, "name").to_owned(), hash.concat())
    });
    let expected: Vec<(String, String)> = expected.collect();
    for io in READERS {
        for workers in ["1", "3"] {
            let hashes = json(&["hash", &path, "--io", io, "--workers", workers]);
            let found = list(&hashes, "tensors").iter();
            let found = found.map(|tensor| (text(tensor, "name").to_owned(), text(tensor, "sha256").to_owned()));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{io}");
        }
    }
    let lines: Vec<String> = expected.iter().map(|(name, hash)| format!("{hash}  {name}\n")).collect();
    assert_eq!(succeed(&["hash", &path]), lines.concat());
}

#[test]
fn check_tells_changed_missing_and_unlisted_tensors() {
    let folder = Folder::new();
    let path = folder.tiny();
    let (lines, as_json) = (folder.path("lines"), folder.path("json"));
    std::fs::write(&lines, succeed(&["hash", &path])).expect("written");
    std::fs::write(&as_json, succeed(&["hash", &path, "--json"])).expect("written");
    for list in [&lines, &as_json] {
        let printed = succeed(&["hash", &path, "--check", list]);
        assert_eq!(printed.lines().filter(|line| line.ends_with(": OK")).count(), 40, "{printed}");
        assert_eq!(printed.lines().count(), 40);
    }
    damage(&path, "blk.1.attn_k.weight", 1000, &[0x55; 4]);
    for list in [&lines, &as_json] {
        let (printed, complaint) = fail(&["hash", &path, "--check", list]);
        assert!(printed.contains("blk.1.attn_k.weight: FAILED\n"), "{printed}");
        assert_eq!(printed.matches(": OK\n").count(), 39);
        assert!(complaint.contains("1 of 40 tensors"), "{complaint}");
    }
    let changed = std::fs::read_to_string(&lines).expect("the list");
    std::fs::write(&lines, changed.replace("  output.weight", "  nowhere.weight")).expect("written");
    let (printed, complaint) = fail(&["hash", &path, "--check", &lines]);
    assert!(printed.contains("\noutput.weight: FAILED (not in the list)\n"), "{printed}");
    assert!(printed.contains("\nnowhere.weight: FAILED (not in the model)\n"), "{printed}");
    assert!(complaint.contains("3 of 41"), "{complaint}");
    for (content, place) in [("nonsense\n", "line 1"), ("{\"tensors\":[{}]}", "tensor 0"), ("{", "EOF")] {
        std::fs::write(&lines, content).expect("written");
        let (_, complaint) = fail(&["hash", &path, "--check", &lines]);
        assert!(complaint.contains(place), "{complaint}");
    }
}

#[test]
fn verify_names_the_tensor_and_the_element() {
    let folder = Folder::new();
    let path = folder.synth("q.gguf", &["--preset", "tiny", "--type", "Q4_K"]);
    assert!(succeed(&["verify", &path]).starts_with("ok: 40 tensors"));
    let verdict = json(&["verify", &path]);
    assert_eq!(verdict["ok"], true);
    assert_eq!((number(&verdict, "tensors"), list(&verdict, "findings").len()), (40, 0));
    damage(&path, "blk.1.attn_norm.weight", 5 * 4, &f32::NAN.to_le_bytes());
    // The second scale of the fourth block.
    damage(&path, "blk.2.ffn_up.weight", 3 * 144 + 2, &[0x00, 0x7C]);
    let (printed, complaint) = fail(&["verify", &path]);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert!(lines[0].contains("blk.1.attn_norm.weight") && lines[0].contains("element 5,"), "{printed}");
    assert!(lines[1].contains("blk.2.ffn_up.weight") && lines[1].contains("element 768 "), "{printed}");
    assert!(complaint.ends_with("q.gguf: 2 findings"), "{complaint}");
    let (printed, _) = fail(&["verify", &path, "--json"]);
    let verdict: Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(verdict["ok"], false);
    assert_eq!(text(&list(&verdict, "findings")[1], "tensor"), "blk.2.ffn_up.weight");
}

#[test]
fn verify_tells_of_a_missing_block() {
    let folder = Folder::new();
    let path = folder.tiny();
    let mut content = std::fs::read(&path).expect("the model");
    for at in 0..content.len() - 6 {
        if &content[at..at + 6] == b"blk.2." {
            content[at..at + 3].copy_from_slice(b"odd");
        }
    }
    std::fs::write(&path, content).expect("written");
    let (printed, complaint) = fail(&["verify", &path]);
    assert!(printed.contains("blk.2 is missing"), "{printed}");
    assert!(complaint.ends_with("1 finding"), "{complaint}");
}

#[test]
fn load_visits_every_byte_in_every_pass() {
    let folder = Folder::new();
    let path = folder.tiny();
    let info = json(&["info", &path]);
    let layers = list(&info, "layers");
    let total: u64 = layers.iter().map(|layer| number(layer, "bytes")).sum();
    let count = layers.len() as u64;
    for io in READERS {
        let load = json(&["load", &path, "--io", io, "--passes", "3", "--workers", "2"]);
        assert_eq!(number(&load, "bytes"), 3 * total, "{io}");
        assert_eq!((number(&load, "misses"), number(&load, "hits")), (count, 2 * count), "{io}");
        assert_eq!((number(&load, "evictions"), number(&load, "peak_resident_bytes")), (0, total), "{io}");
        assert_eq!((number(&load, "workers"), number(&load, "passes")), (2, 3), "{io}");
        assert!(number(&load, "stalls") <= count && number(&load, "peak_rss_bytes") > 0);
        let seconds = |key: &str| load[key].as_f64().unwrap_or_else(|| panic!("{key} is a number in {load}"));
        assert!(0.0 < seconds("open_seconds") && seconds("open_seconds") <= seconds("first_layer_seconds"));
        assert!(seconds("first_layer_seconds") <= seconds("seconds") && seconds("read_seconds") >= 0.0);
        let rate = number(&load, "bytes") as f64 / seconds("seconds");
        assert!((seconds("bytes_per_second") / rate - 1.0).abs() < 1e-6);
        let [mapped, buffered, direct] =
            ["mapped_bytes", "buffered_bytes", "direct_bytes"].map(|key| number(&load, key));
        assert!(mapped + buffered + direct >= total, "{io}: {load}");
        assert!(io != "read" || (mapped == 0 && buffered >= total), "{io}: {load}");
        assert!(io != "mmap" || mapped >= total, "{io}: {load}");
        assert!(number(&load, "reader_fallbacks") == 0 || io == "direct", "{io}: {load}");
    }
    assert!(succeed(&["load", &path]).contains("visited"));
}

#[test]
fn load_tells_of_each_layer_when_asked() {
    let folder = Folder::new();
    let output = pml(&["load", &folder.tiny(), "-v", "--passes", "2"]);
    assert_eq!(output.status.code(), Some(0));
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    let outcomes: Vec<&str> = told.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(outcomes, [["miss"; 6], ["hit"; 6]].concat(), "{told}");
    assert!(told.starts_with("token_embd "), "{told}");
}

/// Bytes of all layers, and of each.
fn layer_sizes(path: &str) -> (u64, Vec<u64>) {
    let info = json(&["info", path]);
    let sizes: Vec<u64> = list(&info, "layers").iter().map(|layer| number(layer, "bytes")).collect();
    (sizes.iter().sum(), sizes)
}

#[test]
fn load_tells_each_pass_and_all_that_was_counted() {
    let folder = Folder::new();
    let path = folder.tiny();
    let (total, _) = layer_sizes(&path);
    let load = json(&["load", &path, "--passes", "3"]);
    let passes: Vec<f64> = list(&load, "pass_seconds").iter().filter_map(Value::as_f64).collect();
    assert_eq!((passes.len(), number(&load, "passes")), (3, 3));
    let whole = load["seconds"].as_f64().expect("a number");
    assert!(passes.iter().all(|seconds| *seconds > 0.0) && passes.iter().sum::<f64>() <= whole, "{load}");
    for key in ["total_bytes", "delivered_bytes"] {
        assert_eq!(number(&load, key), total, "{key}");
    }
    for key in ["charged_bytes", "peak_charged_bytes"] {
        assert!((total..total + (1 << 20)).contains(&number(&load, key)), "{load}");
    }
    for key in ["prefetches", "retries", "left_out", "incomplete_layers", "allocations", "evictions"] {
        assert_eq!(number(&load, key), 0, "{key}");
    }
    assert!(number(&json(&["load", &path, "--io", "read"]), "allocations") > 0);
    let printed = succeed(&["load", &path]);
    for row in ["the last pass", "most charged at once", "prefetches", "retries", "tensors left out"] {
        assert!(printed.contains(row), "{printed}");
    }
}

#[test]
fn strategies_begin_layers_ahead_of_need() {
    let folder = Folder::new();
    let path = folder.tiny();
    let (total, sizes) = layer_sizes(&path);
    let begun = |arguments: &[&str]| {
        let load = json(&[&["load", &path, "--passes", "2"], arguments].concat());
        assert_eq!(number(&load, "bytes"), 2 * total, "{arguments:?}");
        assert_eq!(number(&load, "hits") + number(&load, "misses"), 12, "{arguments:?}");
        number(&load, "prefetches")
    };
    assert_eq!(begun(&["--strategy", "on-demand"]), 0);
    assert!((1..=6).contains(&begun(&["--strategy", "sequential"])));
    assert!((1..=6).contains(&begun(&["--strategy", "parallel"])));
    assert_eq!(begun(&["--strategy", "parallel", "--concurrent", "6"]), 6, "all at once");
    assert_eq!(begun(&["--strategy", "prefetch", "--prefetch", "0"]), 0);
    assert!((1..=5).contains(&begun(&["--strategy", "prefetch"])));
    assert_eq!(begun(&["--strategy", "prefetch", "--prefetch", "5", "--concurrent", "5"]), 5, "all but the first");
    assert_eq!(sizes.len(), 6);
}

#[test]
fn limits_hold_where_memory_is_taken_back() {
    let folder = Folder::new();
    let path = folder.tiny();
    let (total, mut sizes) = layer_sizes(&path);
    sizes.sort_unstable();
    let budget = sizes[4] + sizes[5] + (256 << 10);
    for io in ["mmap", "read"] {
        for strategy in ["on-demand", "sequential", "parallel", "prefetch"] {
            for limit in [["--budget", &budget.to_string()], ["--max-loaded-layers", "2"]] {
                let arguments = ["load", &path, "--io", io, "--strategy", strategy, "--unload", "lru", "--passes", "3"];
                let load = json(&[&arguments[..], &limit].concat());
                assert_eq!(number(&load, "bytes"), 3 * total, "{io} {strategy} {limit:?}");
                assert!(number(&load, "evictions") > 0, "{io} {strategy} {limit:?}: {load}");
                assert!(number(&load, "peak_charged_bytes") <= budget, "{io} {strategy} {limit:?}: {load}");
                assert!(number(&load, "charged_bytes") <= number(&load, "peak_charged_bytes"), "{load}");
            }
        }
    }
    assert_eq!(number(&json(&["load", &path, "--unload", "pressure", "--budget", "1G"]), "bytes"), total);
}

/// Prefetching passes over a model that does not fit, with a timeline; what they print.
fn load_with_timeline(path: &str, timeline: &str) -> Value {
    let limits = ["--strategy", "prefetch", "--unload", "lru", "--max-loaded-layers", "3", "--passes", "2"];
    json(&[&["load", path, "--timeline", timeline, "--compute", "1"][..], &limits].concat())
}

/// The names of all files in a folder.
fn files(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.0.path()).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// Sums every fifth number, from the third on: the bytes of records on a page.
fn bytes_of(flat: &[Value]) -> u64 {
    flat.chunks(5).map(|record| record[3].as_u64().expect("bytes")).sum()
}

#[test]
fn a_timeline_is_one_page_that_needs_nothing_else() {
    let folder = Folder::new();
    let path = folder.synth("<b>.gguf", &["--preset", "tiny"]);
    std::fs::write(folder.path("page.html"), "old").expect("written");
    let load = load_with_timeline(&path, &folder.path("page.html"));
    assert_eq!(files(&folder), ["<b>.gguf", "page.html"]);
    let page = std::fs::read_to_string(folder.path("page.html")).expect("a page");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for needed in ["http:", "https:", "src=", "<link", "@import", "url(", "<b>", "@DATA@"] {
        assert!(!page.contains(needed), "{needed}");
    }
    let start = page.find("type=\"application/json\">").expect("the data") + "type=\"application/json\">".len();
    let data = &page[start..][..page[start..].find("</script>").expect("its end")];
    let data: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!((text(&data, "model"), number(&data, "missing")), ("<b>.gguf", 0));
    assert_eq!(list(&data["layers"], "names")[1], "blk.0");
    assert_eq!(
        list(&data["layers"], "bytes").iter().map(|bytes| bytes.as_u64().expect("bytes")).sum::<u64>(),
        number(&load, "total_bytes")
    );
    assert_eq!(list(&data, "works").len(), 5 * 12);
    assert_eq!(list(&data, "evictions").len() as u64, 2 * number(&load, "evictions"));
    assert!(bytes_of(list(&data, "reads")) >= number(&load, "delivered_bytes"));
    assert!(!list(&data, "waits").is_empty() && !list(&data, "states").is_empty());
}

#[test]
fn a_timeline_is_a_trace_where_its_name_says_so() {
    let folder = Folder::new();
    let path = folder.tiny();
    let load = load_with_timeline(&path, &folder.path("trace.JSON"));
    assert_eq!(files(&folder), ["tiny.gguf", "trace.JSON"]);
    let trace: Value =
        serde_json::from_slice(&std::fs::read(folder.path("trace.JSON")).expect("a trace")).expect("JSON");
    let events = list(&trace, "traceEvents");
    let of = |category: &str| events.iter().filter(|event| event["cat"] == category).count() as u64;
    assert_eq!((of("work"), of("eviction")), (12, number(&load, "evictions")));
    assert!(of("read") > 0 && of("wait") > 0 && of("state") > 0);
    let mut tracks: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    for event in events {
        let track = (number(event, "pid"), number(event, "tid"));
        let time = |key: &str| event[key].as_f64().expect("a number");
        match text(event, "ph") {
            "X" => tracks.entry(track).or_default().push((time("ts"), time("ts") + time("dur"))),
            "i" => assert_eq!(text(event, "s"), "t"),
            phase => assert_eq!((phase, event["args"]["name"].is_string()), ("M", true)),
        }
        assert!(event["ph"] != "X" || time("dur") >= 0.0, "{event}");
    }
    // On one track nothing overlaps; the numbers are rounded.
    for spans in tracks.values_mut() {
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0 + 0.01), "{spans:?}");
    }
}

#[test]
fn a_timeline_that_cannot_be_written_is_told_before_anything_is_loaded() {
    let folder = Folder::new();
    let place = folder.path("nowhere/page.html");
    let (printed, complaint) = fail(&["load", &folder.tiny(), "--timeline", &place]);
    assert!(printed.is_empty() && complaint.contains("nowhere/page.html: "), "{complaint}");
    let (_, complaint) = fail(&["load", &folder.path("no.gguf"), "--timeline", &folder.path("page.html")]);
    assert!(complaint.contains("no.gguf"), "{complaint}");
    assert_eq!(files(&folder), ["tiny.gguf"]);
}

/// A few seconds of reading and 512 MiB of memory: with `PML_TEST_LARGE` only.
#[test]
fn a_model_four_times_its_budget_takes_little_more_than_the_budget() {
    if std::env::var_os("PML_TEST_LARGE").is_none() {
        println!("skipped: PML_TEST_LARGE is not set");
        return;
    }
    let folder = Folder::new();
    let path = folder.synth("large.gguf", &["--preset", "8b", "--sparse", "--layer-bytes", "128MiB", "--layers", "16"]);
    let limits = ["--strategy", "prefetch", "--unload", "lru", "--budget", "512MiB", "--passes", "3"];
    let load = json(&[&["load", &path][..], &limits].concat());
    let total: u64 = list(&json(&["info", &path]), "layers").iter().map(|layer| number(layer, "bytes")).sum();
    assert!(total >= (16 * 127) << 20 && number(&load, "bytes") == 3 * total, "{load}");
    assert!(number(&load, "peak_charged_bytes") <= 512 << 20, "{load}");
    assert!(number(&load, "peak_rss_bytes") <= 576 << 20, "{load}");
    assert!(number(&load, "evictions") > 0, "{load}");
}

#[test]
fn a_layer_without_room_is_one_line_with_the_arithmetic() {
    let folder = Folder::new();
    let path = folder.tiny();
    let (total, sizes) = layer_sizes(&path);
    let half = (total / 2).to_string();
    for unload in ["never", "lru"] {
        let (printed, complaint) = fail(&["load", &path, "--budget", "300K", "--unload", unload]);
        assert!(printed.is_empty() && complaint.contains("of 307200 bytes of the memory budget"), "{complaint}");
        assert!(complaint.contains(&format!("expected room for {}", sizes[1])), "{complaint}");
    }
    for (limit, told) in [(["--budget", &half], half.as_str()), (["--max-loaded-layers", "2"], "2 of 2 loaded")] {
        let (_, complaint) = fail(&[&["load", &path][..], &limit].concat());
        assert!(complaint.contains(told) && complaint.contains("'blk.0'"), "{complaint}");
        let (_, complaint) = fail(&[&["load", &path, "--strategy", "parallel"][..], &limit].concat());
        assert!(complaint.contains(told), "{complaint}");
    }
    fail(&["demo", &path, "--budget", "300K"]);
}

/// Reads of bytes `FROM..TO` of any file take `DELAY` milliseconds each; `FAILURES` of them fail, where they go through the
/// page cache.
const BAD_DISK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static long variable(const char *name) { const char *text = getenv(name); return text ? atol(text) : 0; }

ssize_t pread64(int file, void *into, size_t size, off64_t at) {
    static long failed;
    if (at < variable("TO") && at + (off64_t)size > variable("FROM")) {
        usleep(variable("DELAY") * 1000);
        if (!(fcntl(file, F_GETFL) & O_DIRECT) && __sync_fetch_and_add(&failed, 1) < variable("FAILURES")) {
            errno = EIO;
            return -1;
        }
    }
    ssize_t (*next)(int, void *, size_t, off64_t);
    *(void **)&next = dlsym(RTLD_NEXT, "pread64");
    return next(file, into, size, at);
}
"#;

/// `pml` on a model whose tensor `blk.1.attn_k.weight` lies on a bad spot; 0 is no failure.
fn pml_on_a_bad_disk(path: &str, failures: u32, delay: u32) -> Command {
    static LIBRARY: OnceLock<(Folder, String)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let folder = Folder::new();
        let (source, library) = (folder.path("bad_disk.c"), folder.path("bad_disk.so"));
        std::fs::write(&source, BAD_DISK).expect("written");
        let mut command = c_compiler::compiler(false);
        c_compiler::run(command.args(["-shared", "-fPIC", &source, "-o", &library, "-ldl"]));
        (folder, library)
    });
    let info = json(&["info", path]);
    let tensors = list(&info, "tensors");
    let (first, bad) = (named(tensors, "token_embd.weight"), named(tensors, "blk.1.attn_k.weight"));
    let (start, end) = (number(bad, "offset"), number(bad, "offset") + number(bad, "bytes"));
    let range = if failures > 0 { [start + 1000, end - 1000] } else { [number(first, "offset"), u64::MAX >> 1] };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    command.env("LD_PRELOAD", library).env("FROM", range[0].to_string()).env("TO", range[1].to_string());
    command.env("FAILURES", failures.to_string()).env("DELAY", delay.to_string());
    command.args(["load", path, "--io", "read"]);
    command
}

#[test]
fn recovery_does_as_it_is_told() {
    let folder = Folder::new();
    let path = folder.tiny();
    let run = |failures: u32, arguments: &[&str]| {
        let output = pml_on_a_bad_disk(&path, failures, 0).arg("--json").args(arguments).output().expect("pml starts");
        let complaint = String::from_utf8(output.stderr).expect("UTF-8");
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).ok(), complaint)
    };
    for arguments in [&[][..], &["--recovery", "retry", "--retries", "1", "--backoff", "1"]] {
        let (status, load, complaint) = run(2, arguments);
        assert_eq!((status, complaint.lines().count()), (Some(1), 1), "{complaint}");
        assert!(load.is_none() && complaint.contains("Input/output error"), "{complaint}");
    }
    let (status, load, complaint) = run(2, &["--recovery", "retry", "--retries", "2", "--backoff", "50"]);
    assert_eq!(status, Some(0), "{complaint}");
    let load = load.expect("JSON");
    assert_eq!(number(&load, "retries"), 2);
    assert!(load["seconds"].as_f64() >= Some(0.150), "50 ms and 100 ms: {load}");
    let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(&path);
    if direct.is_ok() {
        let (status, load, complaint) = run(1_000_000, &["--recovery", "fallback"]);
        assert_eq!(status, Some(0), "{complaint}");
        let load = load.expect("JSON");
        assert!(number(&load, "reader_fallbacks") > 0 && number(&load, "direct_bytes") > 0, "{load}");
    }
}

#[test]
fn a_layer_that_lacks_a_tensor_is_told_of_and_passed_over() {
    let folder = Folder::new();
    let path = folder.tiny();
    let (total, sizes) = layer_sizes(&path);
    for strategy in ["on-demand", "parallel", "prefetch"] {
        let mut command = pml_on_a_bad_disk(&path, 1_000_000, 0);
        command.args(["--recovery", "skip", "--passes", "2", "--strategy", strategy]);
        let output = command.arg("--json").output().expect("pml starts");
        let complaint = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{complaint}");
        let lines: Vec<&str> = complaint.lines().collect();
        assert_eq!(lines.len(), 2, "{complaint}");
        assert!(lines[0].starts_with("pml: layer blk.1 ") && lines[0].contains("'blk.1.attn_k.weight'"), "{complaint}");
        assert!(lines[1].ends_with("tiny.gguf: 1 of 6 layers not visited"), "{complaint}");
        let load: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((number(&load, "left_out"), number(&load, "incomplete_layers")), (1, 1));
        assert_eq!(number(&load, "bytes"), 2 * (total - sizes[2]), "{strategy}");
    }
}

/// Runs a command whose standard error is a terminal; what it wrote there. `None` where there are no terminals.
fn in_a_terminal(mut command: Command) -> Option<String> {
    // SAFETY: makes a new descriptor, or fails.
    let master = unsafe { libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) };
    if master < 0 {
        return None;
    }
    let mut name = [0; 128];
    let size = libc::winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor was just opened and has no other owner; the name has the room that is told.
    let (master, ready) = unsafe {
        let ready = libc::grantpt(master) == 0
            && libc::unlockpt(master) == 0
            && libc::ioctl(master, libc::TIOCSWINSZ, &raw const size) == 0
            && libc::ptsname_r(master, name.as_mut_ptr(), name.len()) == 0;
        (OwnedFd::from_raw_fd(master), ready)
    };
    // SAFETY: the name was zeros, and what was written ends in one.
    let name = ready.then(|| unsafe { std::ffi::CStr::from_ptr(name.as_ptr()) })?.to_str().ok()?;
    let terminal = File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name).ok()?;
    let mut child = command.env("TERM", "xterm").stdout(Stdio::null()).stderr(terminal).spawn().expect("pml starts");
    // Or this process would keep the terminal open.
    drop(command);
    let mut told = Vec::new();
    // The end of a terminal is an error.
    let _ = File::from(master).read_to_end(&mut told);
    assert!(child.wait().expect("pml ends").success());
    Some(String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn a_terminal_gets_a_bar_for_the_whole_and_for_each_layer_on_its_way() {
    let folder = Folder::new();
    let path = folder.tiny();
    // Long enough to lose patience, each layer long enough to be seen.
    let mut command = pml_on_a_bad_disk(&path, 0, 300);
    command.args(["--strategy", "parallel", "--workers", "1", "-v"]);
    let Some(told) = in_a_terminal(command) else { return };
    assert!(told.contains("model ") && told.contains(" MiB / "), "{told:?}");
    let bars = |line: &str| ["blk.1 ", "blk.2 ", "blk.3 "].iter().any(|name| line.contains(name) && line.contains('/'));
    assert!(told.lines().any(bars), "{told:?}");
    assert_eq!(told.matches(" ms  miss").count() + told.matches(" ms  hit").count(), 6, "{told:?}");
    let mut quiet = pml_on_a_bad_disk(&path, 0, 300);
    quiet.arg("--json");
    assert_eq!(in_a_terminal(quiet).expect("a terminal"), "");
}

#[test]
fn demo_visits_a_model_in_less_memory_than_it_has() {
    let folder = Folder::new();
    let demo = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
        let output = command.arg("demo").args(arguments).env("TMPDIR", folder.path("")).output().expect("pml starts");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(std::fs::read_dir(folder.path("")).expect("the folder").count(), 0, "nothing is left");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let told = demo(&[]);
    for word in
        ["model ", "budget ", "3 times", "read ", "hits ", "misses", "evictions ", "peak memory", "RSS", "rate "]
    {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert!(told.lines().count() < 12, "{told}");
    let figures: Value = serde_json::from_str(&demo(&["--json", "--passes", "2"])).expect("JSON");
    let (total, budget) = (number(&figures, "total_bytes"), number(&figures, "budget_bytes"));
    assert!(total >= 256 << 20 && budget == total / 4, "{figures}");
    assert!(number(&figures, "peak_charged_bytes") <= budget && number(&figures, "evictions") > 0, "{figures}");
    assert!(number(&figures, "peak_rss_bytes") < total / 2, "{figures}");
    assert_eq!((number(&figures, "bytes"), list(&figures, "pass_seconds").len()), (2 * total, 2));
}

#[test]
fn demo_takes_a_model_and_a_budget() {
    let folder = Folder::new();
    let path = folder.tiny();
    let (total, mut sizes) = layer_sizes(&path);
    sizes.sort_unstable();
    let figures = json(&["demo", &path]);
    let budget = number(&figures, "budget_bytes");
    let least = sizes[4] + sizes[5];
    assert!(number(&figures, "total_bytes") == total && total / 4 < least, "the two largest layers count");
    assert!((least..least + (1 << 20)).contains(&budget) && number(&figures, "evictions") > 0, "{figures}");
    assert!(number(&figures, "peak_charged_bytes") <= budget, "{figures}");
    let figures = json(&["demo", &path, "--budget", "1GiB", "--passes", "1"]);
    assert_eq!((number(&figures, "budget_bytes"), number(&figures, "evictions")), (1 << 30, 0));
    assert!(succeed(&["demo", &path, "--passes", "1"]).contains("tiny.gguf"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    let output = command.arg("demo").env("TMPDIR", folder.path("nowhere")).output().expect("pml starts");
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), complaint.lines().count()), (Some(1), 1), "{complaint}");
    assert!(complaint.starts_with("pml: temporary folder: "), "{complaint}");
}

/// What `plan` says, and the run of its command on this machine; what it took of the memory that was given.
fn planned(path: &str, memory: &str) -> (Value, Value) {
    let plan = json(&["plan", path, "--device", "cpu", "--memory", memory]);
    let command: Vec<&str> = list(&plan, "command").iter().filter_map(Value::as_str).collect();
    assert_eq!(command[..3], ["pml", "load", path]);
    let load = json(&command[1..]);
    assert!(number(&load, "peak_charged_bytes") <= number(&plan, "available_bytes"), "{plan} {load}");
    (plan, load)
}

#[test]
fn plan_shows_its_arithmetic_and_a_command_that_works() {
    let folder = Folder::new();
    let path = folder.synth("f32.gguf", &["--preset", "tiny", "--type", "F32", "--layer-bytes", "32MiB", "--sparse"]);
    let (plan, load) = planned(&path, "1GiB");
    assert_eq!((text(&plan, "dtype"), text(&plan, "strategy"), text(&plan, "unload")), ("keep", "parallel", "never"));
    assert!(plan["memory_budget"].is_null() && plan["loses"].is_null());
    assert_eq!(number(&load, "evictions"), 0);
    let (plan, load) = planned(&path, "110MiB");
    assert_eq!((text(&plan, "dtype"), text(&plan, "strategy"), text(&plan, "unload")), ("keep", "prefetch", "lru"));
    assert!(number(&load, "evictions") > 0 && number(&plan, "prefetch_count") == 1);
    let (plan, _) = planned(&path, "60MiB");
    let chosen = list(&plan, "candidates").iter().find(|one| one["is_chosen"] == true).expect("a choice");
    assert!(text(&plan, "dtype") != "keep" && chosen["dtype"] == plan["dtype"], "{plan}");
    assert!(text(&plan, "loses").contains("bits"), "{plan}");
    assert_eq!(
        keys(chosen),
        [
            "dtype",
            "delivered_bytes",
            "charged_bytes",
            "largest_layer",
            "largest_layer_bytes",
            "usable_bytes",
            "fit",
            "gains",
            "window_layers",
            "window_bytes",
            "is_chosen"
        ]
    );
    let printed = succeed(&["plan", &path, "--device", "cpu", "--memory", "110MiB"]);
    for words in ["less 5 % of the total", "5.50 MiB", "KV cache", "* ", "as a window of 3 layers", "--prefetch 1"] {
        assert!(printed.contains(words), "{words}: {printed}");
    }
    assert!(succeed(&["plan", &path, "--device", "cpu"]).contains("available now to this process"));
    let (printed, complaint) = fail(&["plan", &path, "--device", "cpu", "--memory", "5MiB"]);
    assert!(printed.contains("not: its largest layer does not"), "{printed}");
    assert!(complaint.contains("of 5242880 bytes for layers (as given), expected room for"), "{complaint}");
}

/// Models as large as real ones, in holes. The smallest of them is gone through.
#[test]
fn plan_serves_large_models_in_any_memory() {
    let folder = Folder::new();
    for (preset, types) in [("8b", &[][..]), ("8b", &["--type", "F16"]), ("70b", &[]), ("70b", &["--type", "F16"])] {
        let path = folder.synth("large.gguf", &[&["--preset", preset, "--sparse"], types].concat());
        for memory in ["16GiB", "8GiB", "2GiB"] {
            let plan = json(&["plan", &path, "--device", "cpu", "--memory", memory]);
            let usable = |one: &Value| number(one, "charged_bytes") <= number(one, "usable_bytes");
            let candidates = list(&plan, "candidates");
            let chosen = candidates.iter().position(|one| one["is_chosen"] == true).expect("a choice");
            // Where it is all in memory, the next larger type is not.
            assert!(candidates[chosen]["fit"] != "whole" || !candidates[..chosen].iter().any(usable), "{plan}");
            let is_whole = preset == "8b" && (memory == "16GiB" || types.is_empty() && memory == "8GiB");
            assert_eq!(candidates[chosen]["fit"] == "whole", is_whole, "{plan}");
            let is_narrow = !types.is_empty() && memory == "2GiB";
            assert_eq!(plan["dtype"] != "keep", is_narrow, "{plan}");
        }
    }
    let path = folder.synth("8b.gguf", &["--preset", "8b", "--sparse", "--layers", "8"]);
    let (plan, load) = planned(&path, "1GiB");
    assert!(number(&load, "bytes") == number(&plan, "stored_bytes") && number(&load, "evictions") > 0);
}

#[test]
fn plan_serves_every_family_in_any_memory() {
    let folder = Folder::new();
    let mut loaded = 0;
    for preset in PRESETS {
        let size: &[&str] = if preset == "cnn" { &[] } else { &["--layer-bytes", "2MiB"] };
        let path = folder.synth("family.gguf", &[&["--preset", preset, "--layers", "9", "--sparse"], size].concat());
        let stored = number(&json(&["plan", &path, "--device", "cpu", "--memory", "1TiB"]), "stored_bytes");
        for eighth in [1, 2, 4, 7, 10] {
            let memory = (stored * eighth / 8).to_string();
            if pml(&["plan", &path, "--device", "cpu", "--memory", &memory]).status.success() {
                planned(&path, &memory);
                loaded += 1;
            } else {
                let (_, complaint) = fail(&["plan", &path, "--device", "cpu", "--memory", &memory]);
                assert!(complaint.contains("expected room for"), "{preset} {memory}: {complaint}");
            }
        }
    }
    assert!(loaded > 3 * PRESETS.len(), "{loaded}");
}

#[test]
fn plan_serves_gpus() {
    let folder = Folder::new();
    let path = folder.synth("bf16.gguf", &["--preset", "tiny", "--type", "BF16"]);
    for kind in KINDS {
        let device = kind.device();
        for arguments in [&[][..], &["--device", device], &["--memory", "100MiB"], &["--memory", "5MiB"]] {
            let plan = json_on(kind, &[], &[&["plan", &path], arguments].concat());
            assert_eq!(text(&plan, "device"), device);
            let command: Vec<&str> = list(&plan, "command").iter().skip(1).filter_map(Value::as_str).collect();
            let load = json_on(kind, &[], &command);
            assert_eq!(text(&load, "device"), device);
            assert!(number(&load, "peak_charged_bytes") <= number(&plan, "available_bytes"), "{plan} {load}");
        }
        let new = [("PML_DOUBLE", "capability_major=12")];
        let given = json_on(kind, &new, &["plan", &path, "--device", device, "--memory", "5MiB"]);
        assert_eq!((text(&given, "strategy"), text(&given, "dtype")), ("prefetch", "keep"));
        let old = json_on(kind, &[("PML_DOUBLE", "capability_major=7")], &["plan", &path, "--memory", "100MiB"]);
        assert_eq!((text(&old, "dtype"), text(&old, "strategy")), ("auto", "parallel"));
        assert!(text(&old, "loses").contains("BF16"), "{old}");
        let shared = json_on(kind, &[("PML_DOUBLE", "unified=1")], &["plan", &path, "--memory", "200MiB"]);
        assert!(list(&shared, "candidates").iter().all(|one| number(one, "usable_bytes") <= 62 << 20), "{shared}");
        let complaint = fail_on(kind, &["plan", &path, "--memory", "10K", "--device", device]);
        assert!(complaint.contains("of 10240 bytes for layers"), "{complaint}");
        // No GPU has room: the host is asked, and has none either.
        fail_on(kind, &["plan", &path, "--memory", "10K"]);
    }
}

#[test]
fn devices_begin_with_the_host() {
    let devices = json(&["devices"]);
    let host = &list(&devices, "devices")[0];
    assert_eq!(keys(host), ["name", "kind", "ordinal", "model", "unified", "total_bytes", "free_bytes"]);
    assert_eq!((text(host, "name"), text(host, "kind"), number(host, "ordinal")), ("cpu", "cpu", 0));
    for key in ["total_bytes", "free_bytes"] {
        assert!(host[key].is_u64() || host[key].is_null(), "{host}");
    }
    assert!(succeed(&["devices"]).contains("cpu"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeed(&["completions", shell]);
        for word in ["pml", "layer-bytes", "max-loaded-layers", "demo"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn help_and_version_succeed() {
    assert!(succeed(&["--version"]).starts_with("pml "));
    let help = succeed(&["--help"]);
    for command in ["info", "load", "plan", "demo", "verify", "hash", "devices", "synth", "completions"] {
        assert!(help.contains(command));
        assert!(succeed(&[command, "--help"]).contains("Usage: pml"), "{command}");
    }
}

#[test]
fn wrong_usage_has_a_status_of_its_own() {
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["info"],
        &["info", "x", "--full"],
        &["load", "x", "--io", "magic"],
        &["load", "x", "--passes", "0"],
        &["hash", "x", "--workers", "0"],
        &["load", "x", "--workers", "65"],
        &["load", "x", "--strategy", "magic"],
        &["load", "x", "--unload", "always"],
        &["load", "x", "--budget", "0"],
        &["load", "x", "--budget", "1.5G"],
        &["load", "x", "--max-loaded-layers", "0"],
        &["load", "x", "--prefetch", "-1"],
        &["load", "x", "--concurrent", "0"],
        &["load", "x", "--recovery", "pray"],
        &["load", "x", "--retries", "-1"],
        &["load", "x", "--backoff", "soon"],
        &["load", "x", "--compute", "long"],
        &["plan"],
        &["plan", "x", "--memory", "0"],
        &["plan", "x", "--device", "gpu"],
        &["demo", "--passes", "0"],
        &["demo", "--budget", "0"],
        &["synth", "x"],
        &["synth", "x", "--preset", "9b"],
        &["synth", "x", "--preset", "tiny", "--type", "Q9"],
        &["synth", "x", "--preset", "tiny", "--layer-bytes", "1.5X"],
        &["synth", "x", "--preset", "tiny", "--layers", "0"],
        &["synth", "x", "--preset", "tiny", "--shards", "65536"],
        &["completions", "csh"],
    ] {
        assert_eq!(pml(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn failures_take_one_line() {
    let folder = Folder::new();
    let path = folder.tiny();
    let cut = folder.path("cut.gguf");
    std::fs::write(&cut, &std::fs::read(&path).expect("the model")[..100_000]).expect("written");
    let strange = folder.path("two\nlines.gguf");
    std::fs::write(&strange, b"GGUF").expect("written");
    for command in ["info", "load", "plan", "demo", "verify", "hash"] {
        for file in [folder.path("nowhere.gguf"), folder.path(""), cut.clone(), strange.clone()] {
            fail(&[command, &file]);
        }
    }
    fail(&["hash", &path, "--check", &folder.path("nowhere")]);
    fail(&["synth", &folder.path("no/folder.gguf"), "--preset", "tiny"]);
    let unwritten = folder.path("x.gguf");
    for arguments in [
        &["--preset", "tiny", "--tensors", "3"][..],
        &["--preset", "tiny", "--tensors", "39", "--layers", "4"],
        &["--preset", "tiny", "--layer-bytes", "100"],
        &["--preset", "tiny", "--layer-bytes", "2T"],
        &["--preset", "cnn", "--layer-bytes", "1M"],
    ] {
        fail(&[&["synth", &unwritten], arguments].concat());
    }
    assert!(!Path::new(&unwritten).exists());
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let folder = Folder::new();
    let path = folder.synth("many.gguf", &["--preset", "moe-19k", "--sparse"]);
    for arguments in [&["info", &path][..], &["info", &path, "--json"], &["info", &path, "--metadata", "--full"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("pml starts");
        let mut start = [0; 10];
        child.stdout.take().expect("a pipe").read_exact(&mut start).expect("some output");
        let output = child.wait_with_output().expect("pml ends");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn a_verdict_stands_when_its_reader_has_left() {
    let folder = Folder::new();
    let path = folder.tiny();
    damage(&path, "blk.1.attn_norm.weight", 0, &f32::NAN.to_le_bytes());
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    command.args(["verify", &path]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("pml starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("pml ends");
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.ends_with("1 finding\n") && complaint.lines().count() == 1, "{complaint}");
}

#[test]
fn a_full_disk_is_a_failure() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    let output = command.arg("devices").stdout(full).stderr(Stdio::piped()).output().expect("pml starts");
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(complaint.starts_with("pml: standard output: ") && complaint.lines().count() == 1, "{complaint}");
}

#[test]
fn every_preset_opens_and_verifies() {
    let folder = Folder::new();
    for (preset, architecture, count, sample) in [
        ("tiny", "llama", 40, "rope_freqs.weight"),
        ("1b", "llama", 147, "blk.15.attn_output.weight"),
        ("8b", "llama", 292, "output.weight"),
        ("70b", "llama", 724, "blk.79.ffn_down.weight"),
        ("moe", "qwen3moe", 579, "blk.47.ffn_gate_exps.weight"),
        ("moe-19k", "qwen3moe", 18_867, "blk.47.ffn_up.127.weight"),
        ("rnn", "mamba", 242, "blk.23.ssm_conv1d.bias"),
        ("cnn", "resnet", 267, "layer4.2.bn3.running_var"),
        ("encoder-decoder", "t5", 282, "dec.blk.11.cross_attn_o.weight"),
    ] {
        let info = json(&["info", &folder.synth("whole.gguf", &["--preset", preset, "--sparse"])]);
        let tensors = list(&info, "tensors");
        assert_eq!((text(&info, "architecture"), tensors.len()), (architecture, count), "{preset}");
        named(tensors, sample);
        let has_output = tensors.iter().any(|tensor| tensor["name"] == "output.weight");
        assert_eq!(has_output, !["1b", "rnn", "cnn"].contains(&preset), "{preset}");
    }
    // Small blocks shrink the embeddings too, so that there is little to read.
    for preset in PRESETS {
        let size: &[&str] = if preset == "cnn" { &[] } else { &["--layer-bytes", "1MiB"] };
        let path = folder.synth("small.gguf", &[&["--preset", preset, "--layers", "3"], size].concat());
        assert!(succeed(&["verify", &path]).starts_with("ok"), "{preset}");
        succeed(&["load", &path]);
    }
}

#[test]
fn blocks_have_the_size_asked_for() {
    let folder = Folder::new();
    for preset in PRESETS.into_iter().filter(|preset| *preset != "cnn") {
        for (size, bytes) in [("1MiB", 1_u64 << 20), ("7000000", 7_000_000), ("128M", 128 << 20), ("1GiB", 1 << 30)] {
            for types in [&[][..], &["--type", "q4_k", "--type", "Q8_0", "--type", "Q6_K"]] {
                let arguments = [&["--preset", preset, "--sparse", "--layers", "2", "--layer-bytes", size], types];
                let info = json(&["info", &folder.synth("sized.gguf", &arguments.concat())]);
                let blocks = list(&info, "layers").iter().filter(|layer| text(layer, "name").contains("blk."));
                let sizes: Vec<u64> = blocks.map(|block| number(block, "bytes")).collect();
                assert_eq!(sizes.len(), if preset == "encoder-decoder" { 4 } else { 2 });
                let is_near = |found: &u64| found.abs_diff(bytes) <= bytes / 100;
                assert!(sizes.iter().all(is_near), "{preset} {types:?}: {sizes:?} for {size}");
            }
        }
    }
}

#[test]
fn large_sparse_models_take_no_space() {
    let folder = Folder::new();
    let arguments = ["--preset", "8b", "--sparse", "--layer-bytes", "128MiB", "--layers", "96"];
    let file = std::fs::metadata(folder.synth("large.gguf", &arguments)).expect("a file");
    assert!(file.len() > (96 * 127) << 20);
    assert!(file.blocks() * 512 < 64 << 20, "{} blocks", file.blocks());
}

#[test]
fn the_number_of_tensors_is_exact() {
    let folder = Folder::new();
    for (preset, count) in
        [("tiny", 13), ("tiny", 25), ("tiny", 41), ("tiny", 100_000), ("moe-19k", 20_000), ("cnn", 1000), ("70b", 723)]
    {
        let asked = count.to_string();
        let path = folder.synth("counted.gguf", &["--preset", preset, "--sparse", "--tensors", &asked]);
        assert_eq!(list(&json(&["info", &path]), "tensors").len(), count, "{preset}");
    }
    let both = ["--preset", "moe-19k", "--tensors", "2000", "--layers", "3", "--layer-bytes", "2MiB", "--sparse"];
    let info = json(&["info", &folder.synth("both.gguf", &both)]);
    assert_eq!(list(&info, "tensors").len(), 2000);
    assert!(number(named(list(&info, "layers"), "blk.1"), "bytes").abs_diff(2 << 20) < 21 << 10);
    let small = folder.synth("verified.gguf", &["--preset", "tiny", "--tensors", "24"]);
    assert!(succeed(&["verify", &small]).starts_with("ok: 24 tensors"));
}

#[test]
fn every_type_is_taken_in_turn() {
    let folder = Folder::new();
    let mut arguments = vec!["--preset", "tiny", "--layers", "6"];
    let names: Vec<String> = Dtype::ggml().map(|dtype| dtype.name().to_lowercase()).collect();
    for name in &names {
        arguments.extend(["--type", name]);
    }
    let path = folder.synth("types.gguf", &arguments);
    let info = json(&["info", &path]);
    let (matrices, vectors): (Vec<&Value>, Vec<&Value>) =
        list(&info, "tensors").iter().partition(|tensor| list(tensor, "shape").len() > 1);
    let found: Vec<&str> = matrices.iter().map(|tensor| text(tensor, "dtype")).collect();
    let expected: Vec<&str> = Dtype::ggml().cycle().map(Dtype::name).take(found.len()).collect();
    assert_eq!(found, expected);
    assert!(found.len() > Dtype::ggml().count());
    assert!(vectors.iter().all(|tensor| tensor["dtype"] == "F32"));
    assert!(succeed(&["verify", &path]).starts_with("ok"));
    let info = json(&["info", &folder.synth("rows.gguf", &["--preset", "rnn", "--sparse", "--type", "Q4_K"])]);
    assert_eq!(named(list(&info, "tensors"), "blk.0.ssm_in.weight")["dtype"], "Q4_K");
    assert_eq!(named(list(&info, "tensors"), "blk.0.ssm_dt.weight")["dtype"], "F16");
}

#[test]
fn shards_are_one_model_whichever_is_named() {
    let folder = Folder::new();
    let hashes = succeed(&["hash", &folder.tiny()]);
    for (out, shards) in [("split.gguf", 3_usize), ("other", 7), ("many", 40), ("more", 43)] {
        let made = json(&["synth", &folder.path(out), "--preset", "tiny", "--shards", &shards.to_string()]);
        let paths: Vec<&str> = list(&made, "paths").iter().filter_map(Value::as_str).collect();
        let prefix = folder.path(out.trim_end_matches(".gguf"));
        let expected: Vec<String> =
            (1..=shards).map(|number| format!("{prefix}-{number:05}-of-{shards:05}.gguf")).collect();
        assert_eq!(paths, expected);
        for path in [paths[0], paths[shards - 1], paths[shards / 2]] {
            assert_eq!(succeed(&["hash", path]), hashes);
        }
        let info = json(&["info", paths[1]]);
        assert_eq!(info["architecture"], "llama");
        let mut numbers: Vec<u64> = list(&info, "tensors").iter().map(|tensor| number(tensor, "shard")).collect();
        assert!(numbers.is_sorted());
        numbers.dedup();
        assert_eq!(numbers.len(), shards.min(40));
        assert!(succeed(&["verify", paths[0]]).starts_with("ok"));
    }
    let size = |number: u32| std::fs::metadata(folder.path(&format!("split-0000{number}-of-00003.gguf"))).expect("it");
    let sizes = [1, 2, 3].map(|number| size(number).len());
    assert!(sizes.iter().all(|size| size.abs_diff(sizes[0]) < 512 << 10), "{sizes:?}");
}

#[test]
fn the_seed_decides_every_byte() {
    let folder = Folder::new();
    let write = |name: &str, seed: &str| {
        let path = folder.synth(name, &["--preset", "tiny", "--type", "F32", "--type", "Q4_K", "--seed", seed]);
        std::fs::read(path).expect("the model")
    };
    let first = write("a.gguf", "7");
    assert!(first == write("b.gguf", "7"));
    assert!(first != write("c.gguf", "8"));
    let hashes = succeed(&["hash", &folder.path("a.gguf")]);
    let mut different: Vec<&str> = hashes.lines().filter_map(|line| line.split("  ").next()).collect();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), 40, "no two tensors are the same");
}

#[test]
fn synth_replaces_a_file_and_says_what_it_wrote() {
    let folder = Folder::new();
    let path = folder.path("replaced.gguf");
    std::fs::write(&path, b"something else").expect("written");
    let made = json(&["synth", &path, "--preset", "tiny"]);
    assert_eq!((text(&made, "path"), number(&made, "tensors")), (path.as_str(), 40));
    let info = json(&["info", &path]);
    let total: u64 = list(&info, "layers").iter().map(|layer| number(layer, "bytes")).sum();
    assert_eq!(number(&made, "bytes"), total);
    let printed = succeed(&["synth", &path, "--preset", "tiny"]);
    assert!(printed.lines().count() == 1 && printed.contains("40 tensors"), "{printed}");
    assert_eq!(std::fs::read_dir(folder.path("")).expect("the folder").count(), 1, "nothing is left beside it");
}

/// The real models in the folder that `PML_TEST_MODELS` names, if it is set.
#[test]
fn real_models_are_served() {
    let Some(folder) = std::env::var_os("PML_TEST_MODELS") else { return };
    let entries = std::fs::read_dir(folder).expect("the folder");
    let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let is_model = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "gguf");
    let models: Vec<&str> = paths.iter().filter(is_model).filter_map(|path| path.to_str()).collect();
    assert!(!models.is_empty());
    for path in models {
        let info = json(&["info", path, "--metadata"]);
        assert_eq!(list(&info, "metadata").len() as u64, number(&info, "metadata_count"), "{path}");
        let total: u64 = list(&info, "tensors").iter().map(|tensor| number(tensor, "bytes")).sum();
        assert_eq!(number(&json(&["load", path]), "bytes"), total, "{path}");
        assert!(succeed(&["verify", path]).starts_with("ok"), "{path}");
        assert_eq!(list(&json(&["hash", path]), "tensors").len(), list(&info, "tensors").len(), "{path}");
        succeed(&["info", path, "--metadata", "--full"]);
    }
}

// ---- On devices ----

/// Runs `pml` where the double of a driver is found first.
fn pml_on(kind: Kind, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    for hides in ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"] {
        command.env_remove(hides);
    }
    command.env("LD_LIBRARY_PATH", folder(kind, Variant::Current)).envs(environment.iter().copied());
    command.args(arguments).output().expect("pml starts")
}

/// What a command prints that has to succeed on the double.
#[track_caller]
fn succeed_on(kind: Kind, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let output = pml_on(kind, environment, arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{kind:?} {arguments:?}: {complaint}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn json_on(kind: Kind, environment: &[(&str, &str)], arguments: &[&str]) -> Value {
    let text = succeed_on(kind, environment, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).expect("JSON")
}

/// The one line of complaint of a command that has to fail on the double.
#[track_caller]
fn fail_on(kind: Kind, arguments: &[&str]) -> String {
    let output = pml_on(kind, &[], arguments);
    let complaint = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {complaint}");
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    complaint
}

#[test]
fn what_a_gpu_gives_back_hashes_as_the_file_does() {
    let folder = Folder::new();
    let mut models = vec![folder.synth("q.gguf", &["--preset", "moe", "--layers", "3", "--layer-bytes", "6MiB"])];
    if let Some(folder) = std::env::var_os("PML_TEST_MODELS") {
        let entries = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
        let paths = entries.filter(|path| path.extension().is_some_and(|extension| extension == "gguf"));
        models.extend(paths.filter_map(|path| path.to_str().map(str::to_owned)));
    }
    for model in &models {
        let expected = succeed(&["hash", model]);
        for kind in KINDS {
            let found = succeed_on(kind, &[], &["hash", model, "--device", kind.device(), "--workers", "3"]);
            assert!(found == expected, "{model} on {kind:?}");
        }
    }
    let libraries = [doubles::hip_over_cuda(), doubles::folder(Kind::Cuda, Variant::Current)];
    let mut command = Command::new(env!("CARGO_BIN_EXE_pml"));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).expect("paths"));
    let output = command.args(["hash", &models[0], "--device", "hip:0"]).output().expect("pml starts");
    assert!(output.status.success() && output.stdout == succeed(&["hash", &models[0]]).into_bytes(), "{output:?}");
    let list = folder.path("list");
    std::fs::write(&list, succeed(&["hash", &models[0]])).expect("written");
    for (kind, io) in KINDS.into_iter().zip(["mmap", "direct"]) {
        let arguments = ["hash", &models[0], "--device", "auto", "--io", io, "--check", &list];
        let printed = succeed_on(kind, &[], &arguments);
        assert!(printed.lines().all(|line| line.ends_with(": OK")), "{printed}");
    }
    assert!(succeed(&["hash", &models[0], "--device", "auto"]) == succeed(&["hash", &models[0]]));
}

#[test]
fn load_tells_the_device_and_how_bytes_came_there() {
    let folder = Folder::new();
    let path = folder.tiny();
    let total: u64 = list(&json(&["info", &path]), "layers").iter().map(|layer| number(layer, "bytes")).sum();
    for kind in KINDS {
        for strategy in ["on-demand", "parallel", "prefetch"] {
            let arguments = ["load", &path, "--device", kind.device(), "--strategy", strategy, "--passes", "2"];
            let load = json_on(kind, &[], &arguments);
            assert_eq!((text(&load, "device"), text(&load, "device_reason")), (kind.device(), "asked for"));
            assert_eq!((number(&load, "bytes"), number(&load, "delivered_bytes")), (2 * total, total));
            assert!(number(&load, "copied_bytes") >= total && number(&load, "allocations") > 0, "{load}");
            assert!(number(&load, "peak_staging_bytes") >= number(&load, "staging_bytes"), "{load}");
            assert_eq!((&load["staging_pageable"], number(&load, "revivals")), (&Value::Bool(false), 0));
        }
        let load = json_on(kind, &[], &["load", &path]);
        assert_eq!(text(&load, "device"), kind.device());
        assert!(text(&load, "device_reason").starts_with("the first GPU with room: "), "{load}");
        let load = json_on(kind, &[("PML_DOUBLE", "device_bytes=1048576")], &["load", &path]);
        assert_eq!((text(&load, "device"), number(&load, "copied_bytes")), ("cpu", 0));
        assert!(text(&load, "device_reason").contains(" bytes free, "), "{load}");
        let printed = succeed_on(kind, &[], &["load", &path, "--alignment", "4096", "--tail-padding", "512"]);
        assert!(printed.contains(kind.device()) && printed.contains("page-locked"), "{printed}");
        let told = succeed_on(kind, &[], &["demo", &path, "--passes", "1"]);
        assert!(told.contains(&format!("device      {}: the first GPU", kind.device())), "{told}");
        let spaced = ["load", &path, "--device", kind.device(), "--alignment", "4096", "--tail-padding", "64K"];
        let spaced = json_on(kind, &[], &spaced);
        assert!(number(&spaced, "peak_charged_bytes") >= total + (40 << 16), "{spaced}");
    }
    let load = json(&["load", &path, "--device", "cpu"]);
    assert_eq!((text(&load, "device"), text(&load, "device_reason")), ("cpu", "asked for"));
}

#[test]
fn a_device_that_is_not_there_is_refused_with_the_reason() {
    let folder = Folder::new();
    let path = folder.tiny();
    for kind in KINDS {
        let absent = kind.device().replace('0', "7");
        for command in ["load", "hash", "demo", "plan"] {
            let complaint = fail_on(kind, &[command, &path, "--device", &absent]);
            assert!(complaint.contains(&format!("found '{absent}'")), "{complaint}");
            assert!(complaint.contains(&format!("one that is there: {}", kind.device())), "{complaint}");
        }
    }
    for name in ["gpu", "cuda:", "cuda:+1", "cpu:1", ""] {
        let output = pml(&["load", &path, "--device", name]);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && complaint.contains("'cuda:0'"), "{name}: {complaint}");
    }
    let (_, complaint) = fail(&["load", &path, "--alignment", "48"]);
    assert!(complaint.contains("argument alignment: found 48"), "{complaint}");
    let (_, complaint) = fail(&["load", &path, "--tail-padding", "2MiB"]);
    assert!(complaint.contains("argument tail_padding: found 2097152"), "{complaint}");
}

/// Debian's own runtime, on a machine without such a device.
#[test]
fn a_hip_runtime_without_a_device_is_no_place_to_load_to() {
    let listed = json(&["devices"]);
    let absence = list(&listed, "absent").iter().find(|absence| absence["kind"] == "hip");
    let Some(reason) = absence.map(|absence| text(absence, "reason")) else {
        return println!("skipped: this machine has such a device");
    };
    let folder = Folder::new();
    let (_, complaint) = fail(&["load", &folder.tiny(), "--device", "hip:0"]);
    assert!(complaint.contains(reason), "{complaint}");
    if !reason.starts_with("no HIP runtime") {
        assert!(complaint.contains("no device ("), "{complaint}");
    }
}
