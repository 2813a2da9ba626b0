//! `Warnings`: what is odd in a settings file but does not stop a run.

/// Warnings kept; of the rest only the number is told, so that a file of nothing but mistakes stays bounded.
const MAX_KEPT: usize = 100;

/// A bounded list of warnings, each a full sentence that names the file.
#[derive(Clone, Debug, Default)]
pub(super) struct Warnings {
    kept: Vec<String>,
    left_out: u64,
}

impl Warnings {
    pub(super) fn push(&mut self, warning: impl FnOnce() -> String) {
        if self.kept.len() < MAX_KEPT {
            self.kept.push(warning());
        } else {
            self.left_out += 1;
        }
    }

    pub(super) fn into_vec(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.kept
                .push(format!("and {} more warnings of this kind", self.left_out));
        }
        self.kept
    }
}
