//! The tiles of a chunk: a few rows at a time, whole or one piece in so many.

use std::ops::Range;

use super::Grid;
use super::kernel::TILE_ROWS;

/// Columns of a tile of which only one of several counts.
const PIECE: usize = 128;

/// One of how many parts is looked at where rows are this long: of short ones all.
pub(super) fn part(grid: Grid, one_of: usize) -> usize {
    if grid.row_len >= one_of * PIECE {
        one_of
    } else {
        1
    }
}

/// The tiles of a chunk, each with where it starts, its rows and its columns: all of them, or one of so many, every column and row
/// about as often; of a row that the chunk has only a short part of, all.
pub(super) fn of(
    grid: Grid,
    elements: usize,
    one_of: usize,
) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let mut at = 0;
    let bands = std::iter::from_fn(move || {
        let (row, column) = (
            (grid.column + at) / grid.row_len,
            (grid.column + at) % grid.row_len,
        );
        let whole = (elements - at) / grid.row_len;
        let (rows, end) = if column == 0 && whole > 0 {
            (whole.min(TILE_ROWS), grid.row_len)
        } else {
            (1, grid.row_len.min(column + elements - at))
        };
        let start = at;
        at += rows * (end - column);
        (start < elements).then_some((start, row..row + rows, column..end))
    });
    bands
        .enumerate()
        .flat_map(move |(band, (start, rows, columns))| {
            let sampled = one_of > 1 && columns.len() >= PIECE * one_of;
            let (piece, step) = if sampled {
                (PIECE, one_of)
            } else {
                (columns.len(), 1)
            };
            let pieces = columns
                .clone()
                .step_by(piece)
                .skip(band % step)
                .step_by(step);
            pieces.map(move |from| {
                let to = columns.end.min(from + piece);
                (start + (from - columns.start), rows.clone(), from..to)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often tiles have each element.
    fn times(grid: Grid, elements: usize, one_of: usize) -> Vec<usize> {
        let mut times = vec![0; elements];
        for (start, rows, columns) in of(grid, elements, one_of) {
            assert!(rows.len() <= TILE_ROWS);
            for (number, row) in rows.enumerate() {
                for (at, column) in columns.clone().enumerate() {
                    let element = start + number * grid.row_len + at;
                    let place = grid.column + element;
                    let expected = (place / grid.row_len, place % grid.row_len);
                    assert_eq!((row, column), expected, "{element}");
                    times[element] += 1;
                }
            }
        }
        times
    }

    #[test]
    fn tiles_cover_a_chunk_once() {
        for (row_len, column, elements) in [
            (1, 0, 9),
            (16, 0, 256),
            (16, 5, 300),
            (600, 599, 2401),
            (700, 30, 40),
            (5000, 0, 5000 * 9 + 17),
        ] {
            let grid = Grid { row_len, column };
            assert!(times(grid, elements, 1).iter().all(|&times| times == 1));
        }
    }

    #[test]
    fn a_quarter_has_every_row_and_column_as_often() {
        let (row_len, rows) = (4 * PIECE * 3, 4 * TILE_ROWS * 2);
        let grid = Grid { row_len, column: 0 };
        let quarter = times(grid, row_len * rows, 4);
        for row in quarter.chunks(row_len) {
            assert_eq!(row.iter().sum::<usize>(), row_len / 4);
        }
        for column in 0..row_len {
            let column = quarter.iter().skip(column).step_by(row_len);
            assert_eq!(column.sum::<usize>(), rows / 4);
        }
        // Wherever in a row a chunk begins, no column goes without.
        let grid = Grid {
            row_len: 4 * PIECE,
            column: 77,
        };
        let quarter = times(grid, 40 * grid.row_len, 4);
        for column in 0..grid.row_len {
            let column = quarter.iter().skip(column).step_by(grid.row_len);
            assert!((8..=16).contains(&column.sum::<usize>()));
        }
        // Of short rows all is looked at.
        let rows = |row_len| Grid { row_len, column: 0 };
        assert_eq!(part(rows(4 * PIECE), 4), 4);
        assert_eq!(part(rows(4 * PIECE - 1), 4), 1);
    }
}
