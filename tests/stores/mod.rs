//! Stores of models, laid out as the programs do that they belong to.

#![allow(dead_code)]

use std::fs::{create_dir_all, write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use pml::zoo::{Zoo, ZooOptions};
use serde_json::json;
use sha2::{Digest, Sha256};

/// A commit of the Hub, and another one.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub const OTHER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// All four, in a folder that is gone after the test.
pub struct Stores {
    folder: tempfile::TempDir,
}

impl Stores {
    pub fn new() -> Stores {
        Stores { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn own(&self) -> PathBuf {
        self.path("zoo")
    }

    pub fn hub(&self) -> PathBuf {
        self.path("huggingface/hub")
    }

    pub fn ollama(&self) -> PathBuf {
        self.path("ollama/models")
    }

    pub fn lm_studio(&self) -> PathBuf {
        self.path("lmstudio/models")
    }

    pub fn options(&self) -> ZooOptions {
        ZooOptions {
            path: Some(self.own()),
            huggingface: Some(self.hub()),
            ollama: Some(self.ollama()),
            lm_studio: Some(self.lm_studio()),
            limit: None,
        }
    }

    pub fn zoo(&self) -> Zoo {
        Zoo::new(self.options())
    }

    /// The variables that lead a program to these stores, and to no others.
    pub fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        let home = self.path("home");
        create_dir_all(home.join(".lmstudio")).unwrap();
        let settings = json!({ "downloadsFolder": self.lm_studio() });
        write(home.join(".lmstudio/settings.json"), settings.to_string()).unwrap();
        vec![("HOME", home), ("PML_ZOO", self.own()), ("HF_HUB_CACHE", self.hub()), ("OLLAMA_MODELS", self.ollama())]
    }

    /// The folder of a repository in the Hub's cache.
    pub fn repository(&self, name: &str) -> PathBuf {
        self.hub().join(format!("models--{}", name.replace('/', "--")))
    }

    /// Has the Hub's cache know a commit by a name.
    pub fn add_ref(&self, repository: &str, name: &str, commit: &str) {
        write_with_folders(&self.repository(repository).join("refs").join(name), commit.as_bytes());
    }

    /// Adds a file to a snapshot, as a large one: a blob named by its SHA-256, and a relative link to it.
    pub fn add_to_hub(&self, repository: &str, commit: &str, file: &str, content: &[u8]) -> PathBuf {
        let folder = self.repository(repository);
        let digest = digest(content);
        write_with_folders(&folder.join("blobs").join(&digest), content);
        let link = folder.join("snapshots").join(commit).join(file);
        create_dir_all(link.parent().unwrap()).unwrap();
        let up = "../".repeat(2 + file.matches('/').count());
        symlink(format!("{up}blobs/{digest}"), &link).unwrap();
        link
    }

    /// The manifest of a model in Ollama's store.
    pub fn manifest(&self, name: &str, tag: &str) -> PathBuf {
        let folder = match name.split('/').count() {
            1 => format!("registry.ollama.ai/library/{name}"),
            2 => format!("registry.ollama.ai/{name}"),
            _ => name.to_owned(),
        };
        self.ollama().join("manifests").join(folder).join(tag)
    }

    /// Adds a model to Ollama's store; its blob.
    pub fn add_to_ollama(&self, name: &str, tag: &str, content: &[u8]) -> PathBuf {
        let mut layers = Vec::new();
        let mut blob = PathBuf::new();
        let texts = [("template", &b"{{ .Prompt }}"[..]), ("license", b"a licence")];
        for (kind, bytes) in texts.into_iter().chain([("model", content)]) {
            let digest = digest(bytes);
            blob = self.ollama().join("blobs").join(format!("sha256-{digest}"));
            write_with_folders(&blob, bytes);
            let media_type = format!("application/vnd.ollama.image.{kind}");
            let digest = format!("sha256:{digest}");
            layers.push(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "digest": format!("sha256:{}", digest(b"{}")),
                "size": 2,
            },
            "layers": layers,
        });
        write_with_folders(&self.manifest(name, tag), manifest.to_string().as_bytes());
        blob
    }

    /// Adds a file to LM Studio's folder.
    pub fn add_to_lm_studio(&self, model: &str, file: &str, content: &[u8]) -> PathBuf {
        let path = self.lm_studio().join(model).join(file);
        write_with_folders(&path, content);
        path
    }
}

pub fn write_with_folders(path: &Path, content: &[u8]) {
    create_dir_all(path.parent().unwrap()).unwrap();
    write(path, content).unwrap();
}

pub fn digest(content: &[u8]) -> String {
    let digits = Sha256::digest(content).into_iter().flat_map(|byte| [byte >> 4, byte & 0xF]);
    digits.map(|digit| char::from_digit(digit.into(), 16).unwrap()).collect()
}
