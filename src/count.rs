//! Numbers of things, in messages.

use std::fmt::Display;

/// Writes how many there are of something, `1 file` or `2 files`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, what: &str) -> String {
    let end = if count == N::from(1) { "" } else { "s" };
    format!("{count} {what}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        assert_eq!(
            [0, 1, 2].map(|n| counted(n, "file")),
            ["0 files", "1 file", "2 files"]
        );
    }
}
