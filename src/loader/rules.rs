//! A caller's choices by tensor name.

use wildmatch::WildMatch;

use crate::error::{Error, Result, quoted};
use crate::transform::Target;

/// Rules by glob: `*` stands for any characters, dots among them, `?` for one. Of the rules of one kind that match a
/// name, the last one wins.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    layers: Vec<(WildMatch, String)>,
    skips: Vec<(WildMatch, String)>,
    targets: Vec<(WildMatch, String, Target)>,
}

impl Rules {
    /// No rules.
    pub fn new() -> Rules {
        Rules::default()
    }

    /// Tensors that match belong to this layer.
    pub fn layer(&mut self, pattern: &str, layer: &str) -> Result<()> {
        check("pattern", pattern)?;
        check("layer_name", layer)?;
        self.layers.push((WildMatch::new(pattern), layer.to_owned()));
        Ok(())
    }

    /// Tensors that match are left out, as if the file had not got them.
    pub fn skip(&mut self, pattern: &str) -> Result<()> {
        check("pattern", pattern)?;
        self.skips.push((WildMatch::new(pattern), pattern.to_owned()));
        Ok(())
    }

    /// Tensors that match are delivered in this type.
    pub fn dtype(&mut self, pattern: &str, target: Target) -> Result<()> {
        check("pattern", pattern)?;
        self.targets.push((WildMatch::new(pattern), pattern.to_owned(), target));
        Ok(())
    }

    /// The layer that a rule names for this tensor.
    pub fn layer_of(&self, tensor: &str) -> Option<&str> {
        self.layers.iter().rev().find(|(pattern, _)| pattern.matches(tensor)).map(|(_, layer)| layer.as_str())
    }

    /// The rule by which this tensor is left out.
    pub fn skip_of(&self, tensor: &str) -> Option<&str> {
        self.skips.iter().rev().find(|(pattern, _)| pattern.matches(tensor)).map(|(_, text)| text.as_str())
    }

    /// What a rule wants this tensor to become, and the rule.
    pub(super) fn target_of(&self, tensor: &str) -> Option<(Target, &str)> {
        let found = self.targets.iter().rev().find(|(pattern, ..)| pattern.matches(tensor));
        found.map(|(_, text, target)| (*target, text.as_str()))
    }

    /// Whether any rule wants tensors to become this.
    pub(super) fn has_target(&self, target: Target) -> bool {
        self.targets.iter().any(|(.., wanted)| *wanted == target)
    }

    /// Whether any rule wants a tensor to become something.
    pub(super) fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    /// Whether any tensor could be left out.
    pub(super) fn skips_any(&self) -> bool {
        !self.skips.is_empty()
    }
}

fn check(argument: &'static str, text: &str) -> Result<()> {
    if text.is_empty() || text.contains('\0') {
        return Err(Error::argument(argument, quoted(text), "text, not empty and without NUL"));
    }
    Ok(())
}
