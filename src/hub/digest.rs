//! `Digest`: what the hub says of a file's bytes.

use std::io::{self, Read};

use ring::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

const READ_BYTES: usize = 1 << 20;

/// A digest that the hub gives for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Digest {
    /// Of the bytes: for large files.
    Sha256(String),
    /// Of git's blob header and the bytes: for the files that are kept in git itself. SHA-1 finds accidents only.
    GitSha1(String),
}

impl Digest {
    /// Takes the better one of those that a listing gives; `None` if there is none.
    pub fn choose(sha256: Option<&str>, git: Option<&str>) -> Option<Self> {
        let hex = |text: &&str, length| {
            text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let large = sha256
            .filter(|text| hex(text, 64))
            .map(|text| Self::Sha256(text.to_ascii_lowercase()));
        large.or_else(|| {
            git.filter(|text| hex(text, 40))
                .map(|text| Self::GitSha1(text.to_ascii_lowercase()))
        })
    }

    /// Returns the name, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::GitSha1(_) => "git object name",
        }
    }

    /// Returns the hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitSha1(hex) => hex,
        }
    }

    fn algorithm(&self) -> &'static Algorithm {
        match self {
            Self::Sha256(_) => &SHA256,
            Self::GitSha1(_) => &SHA1_FOR_LEGACY_USE_ONLY,
        }
    }

    /// Reads `size` bytes or fewer to their end, and tells whether they have this digest.
    pub fn fits(&self, mut bytes: impl Read, size: u64) -> io::Result<bool> {
        let mut context = Context::new(self.algorithm());
        if let Self::GitSha1(_) = self {
            context.update(format!("blob {size}\0").as_bytes());
        }
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match bytes.read(&mut buffer)? {
                0 => break,
                count => context.update(buffer.get(..count).unwrap_or_default()),
            }
        }
        let found = context.finish();
        let hex = found
            .as_ref()
            .iter()
            .fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Ok(hex == self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digests() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let git = "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"; // git hash-object of "abc"
        assert!(Digest::Sha256(sha256.into()).fits(&b"abc"[..], 3).unwrap());
        assert!(Digest::GitSha1(git.into()).fits(&b"abc"[..], 3).unwrap());
        assert!(!Digest::Sha256(sha256.into()).fits(&b"abd"[..], 3).unwrap());
        assert!(!Digest::GitSha1(git.into()).fits(&b"abc"[..], 4).unwrap());
    }

    #[test]
    fn the_better_one_is_chosen() {
        let (long, short) = ("A".repeat(64), "b".repeat(40));
        assert_eq!(
            Digest::choose(Some(&long), Some(&short)),
            Some(Digest::Sha256("a".repeat(64)))
        );
        assert_eq!(
            Digest::choose(Some("xyz"), Some(&short)),
            Some(Digest::GitSha1(short.clone()))
        );
        assert_eq!(
            Digest::choose(None, Some("../../../../../../../../../../../../../../")),
            None
        );
    }
}
