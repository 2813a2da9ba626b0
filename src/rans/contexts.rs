//! The map from what is known of an element before it is coded to its context.

use super::bits::{BitReader, BitWriter};
use super::model::BinMap;
use super::phased::{self, CELLS};
use super::token::CLASSES;
use super::{Bad, flags};

/// Which context the elements of a class, bin or cell have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contexts {
    /// By class, without scales.
    Classes([u8; CLASSES]),
    /// By bins of scales.
    Bins([u8; 64]),
    /// By class or scales, and by phase.
    Cells(Box<[u8; CELLS]>),
}

impl Contexts {
    /// The bits of a payload's kind that tell how they come about.
    pub(super) fn flags(&self) -> u8 {
        match self {
            Self::Classes(_) | Self::Bins(_) => 0,
            Self::Cells(_) => flags::PHASED,
        }
    }

    /// Where a class leads without scales: to its context or, by phase, its first cell. (Bins are there with scales only.)
    pub(super) fn by_class(&self) -> [u8; CLASSES] {
        match self {
            Self::Classes(map) => *map,
            Self::Bins(_) | Self::Cells(_) => phased::class_cells(),
        }
    }

    /// Where a bin of scales leads, likewise. (Contexts by class alone are there without scales only.)
    pub(super) fn by_bin(&self) -> [u8; 64] {
        match self {
            Self::Bins(map) => *map,
            Self::Classes(_) | Self::Cells(_) => phased::scale_cells().0,
        }
    }

    /// Writes the map; of words alone in one context there is nothing to write.
    pub(super) fn write(&self, is_delta: bool, writer: &mut BitWriter<'_>) {
        match self {
            Self::Classes(map) if is_delta => BinMap(*map).write(writer),
            Self::Classes(_) => {}
            Self::Bins(map) => BinMap(*map).write(writer),
            Self::Cells(map) => phased::write_map(map, writer),
        }
    }

    /// Reads the map of a payload of this kind, and how many contexts there are.
    pub(super) fn read(
        kind: u8,
        is_delta: bool,
        reader: &mut BitReader<'_>,
    ) -> Result<(Self, usize), Bad> {
        Ok(if kind & flags::PHASED != 0 {
            let (map, count) = phased::read_map(reader)?;
            (Self::Cells(Box::new(map)), count)
        } else if kind & flags::SCALED != 0 {
            let bins = BinMap::<64>::read(reader)?;
            (Self::Bins(bins.0), bins.contexts())
        } else if is_delta {
            let bins = BinMap::<CLASSES>::read(reader)?;
            (Self::Classes(bins.0), bins.contexts())
        } else {
            (Self::Classes([0; CLASSES]), 1)
        })
    }
}
