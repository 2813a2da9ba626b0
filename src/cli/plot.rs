//! A picture of a store's figures, as SVG or PNG.
//!
//! PNG is drawn by a small backend of our own, whose letters are those of old terminals: no font has to be installed.
#![expect(
    clippy::disallowed_methods,
    reason = "writes the picture, not to a store"
)]

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use anyhow::{Context, Result, bail};
use font8x8::UnicodeFonts;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind,
};

use super::place::Usage;
use super::terminal::{bytes, counted, percent};
use crate::report::Coded;
use crate::stats::Stats;

const WIDTH: i32 = 900;
const ROW: i32 = 26;
const MARGIN: i32 = 20;
/// Where bars begin: labels are to their left.
const LEFT: i32 = 300;
/// Letters of a label.
const LABEL: usize = 32;
/// Rows of each part, the largest first.
const ROWS: usize = 12;

/// A part of the picture: a title, and rows of a label, a length and what is written beside it.
struct Part {
    title: String,
    rows: Vec<(String, u64, String)>,
}

/// Makes the file, before anything is printed, if its name is right.
pub fn prepare(path: &Path) -> Result<()> {
    if !matches!(ending(path), Some("svg" | "png")) {
        let reason = format!("{}: the name has to end in .svg or .png", path.display());
        bail!(Usage(reason));
    }
    let made = File::options().create(true).append(true).open(path);
    made.with_context(|| format!("{}: cannot create", path.display()))?;
    Ok(())
}

fn ending(path: &Path) -> Option<&str> {
    path.extension().and_then(|ending| ending.to_str())
}

/// Draws the figures to a file, whose name ends in `.svg` or `.png`.
pub fn draw(stats: &Stats, path: &Path) -> Result<()> {
    let parts = parts(stats);
    let rows: usize = parts.iter().map(|part| part.rows.len() + 2).sum();
    let height = 2 * MARGIN + ROW * i32::try_from(rows)?;
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    match ending(path) {
        Some("svg") => paint(&SVGBackend::new(path, size).into_drawing_area(), &parts),
        Some("png") => paint(&Raster::new(path, size).into_drawing_area(), &parts),
        _ => bail!("{}: the name has to end in .svg or .png", path.display()),
    }
    .with_context(|| format!("{}: cannot draw", path.display()))
}

fn parts(stats: &Stats) -> Vec<Part> {
    let saved = |coded: Coded| coded.raw_bytes.saturating_sub(coded.stored_bytes);
    let savings = &stats.savings;
    let stages = [
        ("equal files", savings.file_dedup_bytes),
        ("equal tensors", savings.tensor_dedup_bytes),
        ("difference to a base", saved(savings.delta)),
        ("numbers without a base", saved(savings.solo)),
        ("other bytes", saved(savings.plain)),
        ("left in the store", stats.stored_bytes),
    ];
    let row = |name: &str, part: u64| {
        let beside = format!("{} ({})", bytes(part), percent(part, stats.bytes));
        (name.to_owned(), part, beside)
    };
    let ratio = |name: &str, stored: u64, raw: u64| {
        let beside = format!(
            "{} of {} ({})",
            bytes(stored),
            bytes(raw),
            percent(stored, raw)
        );
        (name.to_owned(), stored, beside)
    };
    let group =
        |group: &crate::stats::Group| ratio(&group.name, group.stored_bytes, group.raw_bytes);
    let family = |family: &crate::stats::Family| {
        ratio(family.root.as_str(), family.stored_bytes, family.bytes)
    };
    let title = |text: &str| text.to_owned();
    let mut parts = vec![
        Part {
            title: format!(
                "{}, {}: what each stage saved",
                counted(stats.models, "model"),
                bytes(stats.bytes)
            ),
            rows: stages.map(|(name, part)| row(name, part)).to_vec(),
        },
        Part {
            title: title("stored, by family"),
            rows: stats.families.iter().map(family).collect(),
        },
        Part {
            title: title("stored, by encoding"),
            rows: stats.encodings.iter().map(group).collect(),
        },
        Part {
            title: title("stored, by dtype"),
            rows: stats.dtypes.iter().map(group).collect(),
        },
    ];
    for part in parts.iter_mut().skip(1) {
        part.rows
            .sort_by_key(|(_, length, _)| std::cmp::Reverse(*length));
        part.rows.truncate(ROWS);
    }
    parts
}

fn paint<D: DrawingBackend>(area: &DrawingArea<D, Shift>, parts: &[Part]) -> Result<()>
where
    D::ErrorType: 'static,
{
    area.fill(&WHITE)?;
    let mut y = MARGIN;
    for part in parts {
        text(area, &part.title, (MARGIN, y), 20)?;
        y += ROW;
        let longest = part.rows.iter().map(|row| row.1).max().unwrap_or(0).max(1);
        for (label, length, beside) in &part.rows {
            text(area, &shortened(label), (MARGIN, y), 14)?;
            let room = u64::try_from(WIDTH - LEFT - 300)?;
            let width =
                i32::try_from(u128::from(*length) * u128::from(room) / u128::from(longest))?;
            let corners = [(LEFT, y), (LEFT + width.max(1), y + ROW - 8)];
            area.draw(&Rectangle::new(
                corners,
                RGBColor(0x2B, 0x6C, 0xB0).filled(),
            ))?;
            text(area, beside, (LEFT + width + 8, y), 14)?;
            y += ROW;
        }
        y += ROW;
    }
    area.present()?;
    Ok(())
}

/// A label that fits; of a model's id the end tells more than the beginning.
fn shortened(label: &str) -> String {
    let count = label.chars().count();
    if count <= LABEL {
        return label.to_owned();
    }
    let end = label.chars().skip(count + 3 - LABEL);
    format!("...{}", end.collect::<String>())
}

fn text<D: DrawingBackend>(
    area: &DrawingArea<D, Shift>,
    text: &str,
    at: (i32, i32),
    size: u32,
) -> Result<()>
where
    D::ErrorType: 'static,
{
    let style = ("sans-serif", size).into_font().color(&BLACK);
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}

/// A picture in memory: red, green and blue of each pixel, row by row.
struct Raster<'a> {
    path: &'a Path,
    size: (u32, u32),
    pixels: Vec<u8>,
}

impl<'a> Raster<'a> {
    fn new(path: &'a Path, size: (u32, u32)) -> Self {
        let count = 3 * size.0 as usize * size.1 as usize;
        Self {
            path,
            size,
            pixels: vec![255; count],
        }
    }

    fn write(&self) -> io::Result<()> {
        let out = BufWriter::new(File::create(self.path)?);
        let mut encoder = png::Encoder::new(out, self.size.0, self.size.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let written = encoder.write_header();
        let written = written.and_then(|mut writer| writer.write_image_data(&self.pixels));
        written.map_err(io::Error::from)
    }
}

impl DrawingBackend for Raster<'_> {
    type ErrorType = io::Error;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.write().map_err(DrawingErrorKind::DrawingError)
    }

    fn draw_pixel(
        &mut self,
        (x, y): BackendCoord,
        color: BackendColor,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else {
            return Ok(());
        };
        let width = self.size.0 as usize;
        let place = 3 * (y * width + x);
        let pixel = self.pixels.get_mut(place..place + 3).filter(|_| x < width);
        if let Some(pixel) = pixel {
            pixel.copy_from_slice(&[color.rgb.0, color.rgb.1, color.rgb.2]);
        }
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (left, top): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        for (at, letter) in (0..).zip(text.chars()) {
            let glyph = font8x8::BASIC_FONTS.get(letter).unwrap_or([0xFF; 8]);
            for (row, bits) in (0..).zip(glyph) {
                for column in (0..8).filter(|column| bits >> column & 1 == 1) {
                    // Twice as high as wide, as on a terminal.
                    for half in 0..2 {
                        let place = (left + 8 * at + column, top + 2 * row + half);
                        self.draw_pixel(place, style.color())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        _style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Self::ErrorType>> {
        let letters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX / 8);
        Ok((8 * letters, 16))
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        (left, top): BackendCoord,
        (right, bottom): BackendCoord,
        style: &S,
        _fill: bool,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        for y in top..=bottom {
            for x in left..=right {
                self.draw_pixel((x, y), style.color())?;
            }
        }
        Ok(())
    }
}
