//! `BaseMap`: which model is a fine-tune of which, and the order in which a batch has to be stored.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::base_file;
use super::warnings::Warnings;
use crate::error::Result;
use crate::name::ModelId;

/// The base of each fine-tune; a model has one base or none, and there is no cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseMap {
    bases: HashMap<ModelId, ModelId>,
    warnings: Vec<String>,
}

/// A model's place in the order of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The model.
    pub id: ModelId,
    /// The model it is a fine-tune of, if any; it comes earlier in the order.
    pub base: Option<ModelId>,
    /// The model is not in the list and only here because it is a base of one that is.
    pub unlisted: bool,
}

impl BaseMap {
    /// Takes the first model as the base of all others.
    pub fn first_is_base(models: &[ModelId]) -> Self {
        let mut bases = HashMap::new();
        if let Some((first, others)) = models.split_first() {
            bases.extend(
                others
                    .iter()
                    .filter(|id| *id != first)
                    .map(|id| (id.clone(), first.clone())),
            );
        }
        Self {
            bases,
            warnings: Vec::new(),
        }
    }

    /// Parses the JSON of the base map at `path`: `{"base": ["fine-tune", ...], ...}`, in file order.
    ///
    /// A fine-tune under two bases keeps the first; the models of a cycle keep none. Both are warnings.
    ///
    /// # Errors
    /// `Error::Config` that names the file and the base: not JSON, a wrong type, a string that is no model id.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let mut warnings = Warnings::default();
        let mut bases = base_file::parse(text, path, &mut warnings)?;
        drop_cycles(&mut bases, path, &mut warnings);
        let bases = bases.into_iter().collect();
        Ok(Self {
            bases,
            warnings: warnings.into_vec(),
        })
    }

    /// Returns the base of a model, if it has one.
    pub fn base_of(&self, model: &ModelId) -> Option<&ModelId> {
        self.bases.get(model)
    }

    /// Returns what was odd in the file, as sentences that name it.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Orders `models`, and the bases they need that are not among them, so that a base precedes its fine-tunes;
    /// otherwise the order stays. Each model is there once.
    pub fn order(&self, models: &[ModelId]) -> Vec<Planned> {
        let listed: HashSet<&ModelId> = models.iter().collect();
        let mut done = HashSet::new();
        let mut order = Vec::new();
        for model in models {
            let chain = std::iter::successors(Some(model), |id| self.base_of(id));
            let mut missing: Vec<&ModelId> = chain.take_while(|id| !done.contains(id)).collect();
            missing.reverse();
            for id in missing {
                done.insert(id);
                let base = self.base_of(id).cloned();
                order.push(Planned {
                    id: id.clone(),
                    base,
                    unlisted: !listed.contains(id),
                });
            }
        }
        order
    }
}

/// Removes the entries that lie on a cycle; what hangs on one keeps its base. `pairs` are fine-tune and base.
fn drop_cycles(pairs: &mut Vec<(ModelId, ModelId)>, path: &Path, warnings: &mut Warnings) {
    let bases: HashMap<&ModelId, &ModelId> =
        pairs.iter().map(|(model, base)| (model, base)).collect();
    let mut seen = HashMap::new();
    let mut cyclic: HashSet<ModelId> = HashSet::new();
    for (start, _) in pairs.iter() {
        if let Some(member) = closing(start, &bases, &mut seen) {
            let members: Vec<&ModelId> = once_around(member, &bases).collect();
            warnings.push(|| cycle_warning(path, &members));
            cyclic.extend(members.into_iter().cloned());
        }
    }
    pairs.retain(|(model, _)| !cyclic.contains(model));
}

/// Walks from `start` from base to base, as far as nobody walked before; returns where the walk met itself, if it did.
/// `seen` keeps for each model the start of the walk that came by first.
fn closing<'a>(
    start: &'a ModelId,
    bases: &HashMap<&'a ModelId, &'a ModelId>,
    seen: &mut HashMap<&'a ModelId, &'a ModelId>,
) -> Option<&'a ModelId> {
    let mut at = start;
    loop {
        if let Some(walk) = seen.insert(at, start) {
            seen.insert(at, walk);
            return (walk == start).then_some(at);
        }
        at = bases.get(at)?;
    }
}

fn once_around<'a>(
    member: &'a ModelId,
    bases: &HashMap<&'a ModelId, &'a ModelId>,
) -> impl Iterator<Item = &'a ModelId> {
    let rest = std::iter::successors(bases.get(member).copied(), |id| bases.get(id).copied());
    std::iter::once(member).chain(rest.take_while(move |id| *id != member))
}

fn cycle_warning(path: &Path, members: &[&ModelId]) -> String {
    let names: Vec<&str> = members.iter().take(8).map(|id| id.as_str()).collect();
    let more = if members.len() > names.len() {
        ", ..."
    } else {
        ""
    };
    let path = path.display();
    match names.as_slice() {
        [alone] => format!("{path}: {alone} is named as its own base; that is ignored"),
        _ => format!(
            "{path}: {}{more} are each other's bases in a circle; that is ignored",
            names.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ModelId {
        text.parse().unwrap()
    }

    fn ids(text: &str) -> Vec<ModelId> {
        text.split_whitespace().map(id).collect()
    }

    fn map(text: &str) -> BaseMap {
        BaseMap::parse(text, Path::new("ft.json")).unwrap()
    }

    /// Writes an order as `model<base`, with `?` behind what is not listed.
    fn shown(order: &[Planned]) -> String {
        let one = |planned: &Planned| {
            let base = planned
                .base
                .as_ref()
                .map(|base| format!("<{base}"))
                .unwrap_or_default();
            format!(
                "{}{base}{}",
                planned.id,
                if planned.unlisted { "?" } else { "" }
            )
        };
        order.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn bases_come_first_and_the_rest_as_listed() {
        for (text, list, order) in [
            ("{}", "a b", "a b"),
            (r#"{"b": ["a"]}"#, "a b", "b a<b"),
            (r#"{"b": ["a"]}"#, "x a b", "x b a<b"),
            (r#"{"b": ["a"], "c": ["b"]}"#, "a x", "c? b<c? a<b x"),
            (r#"{"b": ["a", "unused"]}"#, "c a a", "c b? a<b"),
            (
                r#"{"b": ["a", "c"], "d": ["b"]}"#,
                "c d a b",
                "d b<d c<b a<b",
            ),
        ] {
            assert_eq!(shown(&map(text).order(&ids(list))), order, "{text}");
        }
    }

    #[test]
    fn the_first_is_the_base_without_a_file() {
        let list = ids("base a b");
        let map = BaseMap::first_is_base(&list);
        assert_eq!(shown(&map.order(&list)), "base a<base b<base");
        assert_eq!(BaseMap::first_is_base(&[]), BaseMap::default());
    }

    #[test]
    fn cycles_are_warned_of_and_cut() {
        for (text, order, warning) in [
            (
                r#"{"a": ["a", "b"]}"#,
                "a b<a",
                "a is named as its own base; that is ignored",
            ),
            (
                r#"{"a": ["b"], "b": ["a", "c"]}"#,
                "a b c<b",
                "b, a are each other's bases in a circle; that is ignored",
            ),
            (
                r#"{"b": ["a"], "c": ["b"], "a": ["c"]}"#,
                "a b c",
                "a, b, c are each other's bases in a circle; that is ignored",
            ),
        ] {
            let map = map(text);
            assert_eq!(
                shown(&map.order(&ids("a b c"))),
                order.to_owned() + if order.contains('c') { "" } else { " c" },
                "{text}"
            );
            assert_eq!(map.warnings(), [format!("ft.json: {warning}")], "{text}");
        }
    }

    #[test]
    fn a_long_chain_needs_no_stack_and_a_long_cycle_a_short_warning() {
        let chain: Vec<String> = (0..20_000)
            .map(|i| format!(r#""m{}": ["m{i}"]"#, i + 1))
            .collect();
        let order = map(&format!("{{{}}}", chain.join(","))).order(&ids("m0"));
        assert_eq!((order.len(), order[0].id.as_str()), (20_001, "m20000"));
        let cycle = format!(r#"{{{}, "m0": ["m20000"]}}"#, chain.join(","));
        assert_eq!(map(&cycle).order(&ids("m0")).len(), 1);
        assert!(map(&cycle).warnings()[0].len() < 200);
    }
}
