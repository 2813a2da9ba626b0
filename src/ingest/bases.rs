//! Whether what an object is encoded against is still in the store: a run does not take a difference without its base
//! for stored.

use std::collections::HashSet;

use crate::error::{ErrorKind, Result};
use crate::hash::Hash;
use crate::store::Store;
use crate::store::object::Head;

/// The bases that were found whole; while a run holds the writers' lock, none of them goes.
#[derive(Default)]
pub struct Bases(HashSet<Hash>);

impl Bases {
    /// Returns a base of the object that is not there, or not with all of its own bases. Those of which `is_coming` holds
    /// are about to be written.
    ///
    /// # Errors
    /// Fails where the disk does, or a base is of a newer format.
    pub fn lacking(
        &mut self,
        store: &Store,
        head: &Head,
        is_coming: &impl Fn(&Hash) -> bool,
    ) -> Result<Option<Hash>> {
        for base in &head.bases {
            if !self.is_whole(store, &base.name, head.depth, is_coming)? {
                return Ok(Some(base.name));
            }
        }
        Ok(None)
    }

    /// Looks for a base of an object that has the depth `above`, and for the base's own.
    fn is_whole(
        &mut self,
        store: &Store,
        name: &Hash,
        above: u8,
        is_coming: &impl Fn(&Hash) -> bool,
    ) -> Result<bool> {
        if self.0.contains(name) || is_coming(name) {
            return Ok(true);
        }
        let head = match store.object(name) {
            Ok(object) => object.frame.head,
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
            Err(error) => return Err(error),
        };
        // Depths have to fall, or a circle would never end.
        let is_whole = head.depth < above && self.lacking(store, &head, is_coming)?.is_none();
        if is_whole {
            self.0.insert(*name);
        }
        Ok(is_whole)
    }
}
