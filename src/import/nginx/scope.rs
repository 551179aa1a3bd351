//! Where a directive is looked for: in a block and those around it, as nginx inherits.

use super::parse::Directive;

/// A block with those around it, outermost first.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope<'a> {
    levels: Vec<&'a [Directive]>,
    /// How many of them stand around all servers.
    outer: usize,
}

impl<'a> Scope<'a> {
    pub(super) fn of(block: &'a [Directive]) -> Self {
        Self { levels: vec![block], outer: 0 }
    }

    pub(super) fn within(&self, block: &'a [Directive]) -> Self {
        let mut levels = self.levels.clone();
        levels.push(block);
        Self { levels, outer: self.outer }
    }

    /// The same, as what stands around all servers.
    pub(super) fn around_servers(mut self) -> Self {
        self.outer = self.levels.len();
        self
    }

    /// Every directive of servers and locations.
    pub(super) fn all_in_servers(&self) -> impl Iterator<Item = &'a Directive> + use<'a, '_> {
        self.levels.iter().skip(self.outer).flat_map(|level| level.iter())
    }

    /// The directives of the block around the innermost.
    pub(super) fn around(&self) -> &'a [Directive] {
        self.levels.iter().rev().nth(1).copied().unwrap_or_default()
    }

    /// The directives of the innermost block.
    pub(super) fn own(&self) -> &'a [Directive] {
        self.levels.last().copied().unwrap_or_default()
    }

    /// Those called `name` in the innermost block.
    pub(super) fn own_named(&self, name: &str) -> impl Iterator<Item = &'a Directive> + use<'a, '_> {
        let name = name.to_owned();
        self.own().iter().filter(move |directive| directive.name == name)
    }

    /// All called `name` of the innermost block that has any: lists are inherited only as a whole.
    pub(super) fn nearest(&self, name: &str) -> Vec<&'a Directive> {
        self.nearest_of(&[name])
    }

    /// The same for directives that make up one list together, such as `allow` and `deny`.
    pub(super) fn nearest_of(&self, names: &[&str]) -> Vec<&'a Directive> {
        let named = |level: &&'a [Directive]| -> Vec<&'a Directive> {
            level.iter().filter(|directive| names.contains(&directive.name.as_str())).collect()
        };
        self.levels.iter().rev().map(named).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// The directive called `name` that counts here.
    pub(super) fn one(&self, name: &str) -> Option<&'a Directive> {
        self.nearest(name).last().copied()
    }

    /// The first argument of it.
    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.one(name).map(|directive| directive.arg(0))
    }

    /// Whether it says `on`.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.value(name) == Some("on")
    }

    /// Every directive of the blocks around and this one, innermost last.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a Directive> + use<'a, '_> {
        self.levels.iter().flat_map(|level| level.iter())
    }
}
