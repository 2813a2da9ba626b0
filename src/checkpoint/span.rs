//! `Layout` and `Span`: a file as a sequence of runs of bytes.

use super::Fault;
use crate::dtype::DType;

/// What a file says of one of its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name: any text, never to be used as a path.
    pub name: String,
    /// The element type as the file writes it, known or not.
    pub dtype: String,
    /// The dimensions in elements, outermost first; none for a scalar.
    pub shape: Vec<u64>,
}

/// A run of bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first byte's place in the file.
    pub start: u64,
    /// Bytes in the span, at least one.
    pub length: u64,
    /// The tensor whose data this is; `None` for a header, a gap or trailing bytes.
    pub tensor: Option<TensorInfo>,
    /// How to code the bytes; its element size divides `length`.
    pub dtype: DType,
    /// Elements in a row; 0 where there are no rows.
    pub row_len: u64,
}

impl Span {
    /// Makes a span of bytes that belong to no tensor.
    pub const fn opaque(start: u64, length: u64) -> Self {
        Self {
            start,
            length,
            tensor: None,
            dtype: DType::Opaque,
            row_len: 0,
        }
    }

    /// Rows of each matrix of a stack; 0 for a tensor that is none.
    pub fn matrix_rows(&self) -> u64 {
        matrix_rows(self.tensor.as_ref().map_or(&[], |tensor| &tensor.shape))
    }

    fn describe(&self) -> String {
        match &self.tensor {
            Some(tensor) => format!("tensor {}", quoted(&tensor.name)),
            None => "the header".to_owned(),
        }
    }
}

/// Rows of each matrix of a stack of this shape; 0 for a shape that is none.
pub fn matrix_rows(shape: &[u64]) -> u64 {
    match shape {
        [_, .., rows, _] => *rows,
        _ => 0,
    }
}

/// A file's spans, which tile it exactly and in order, and what was odd about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The spans; none for an empty file.
    pub spans: Vec<Span>,
    /// What is wrong with the file, without its name, for the user to read.
    pub warning: Option<String>,
}

impl Layout {
    /// Makes the layout of a file of `length` bytes that is not looked into.
    pub fn opaque(length: u64) -> Self {
        let spans = if length == 0 {
            Vec::new()
        } else {
            vec![Span::opaque(0, length)]
        };
        Self {
            spans,
            warning: None,
        }
    }
}

/// Sorts spans, drops empty ones, and fills every gap up to `length`, the file's bytes.
///
/// # Errors
///
/// [`Fault::Format`] where two spans overlap or one ends past the file.
pub(super) fn tile(length: u64, mut spans: Vec<Span>) -> Result<Vec<Span>, Fault> {
    spans.retain(|span| span.length > 0);
    spans.sort_unstable_by_key(|span| span.start);
    let mut tiled: Vec<Span> = Vec::with_capacity(spans.len());
    let mut place = 0;
    for span in spans {
        if span.start < place {
            return Err(overlap(tiled.last(), &span));
        }
        if span.start > place {
            tiled.push(Span::opaque(place, span.start - place));
        }
        place = end_within(length, &span)?;
        tiled.push(span);
    }
    if place < length {
        tiled.push(Span::opaque(place, length - place));
    }
    Ok(tiled)
}

fn end_within(length: u64, span: &Span) -> Result<u64, Fault> {
    let end = span.start.checked_add(span.length);
    end.filter(|end| *end <= length)
        .ok_or_else(|| Fault::Format(format!("{} ends past the file", span.describe())))
}

fn overlap(before: Option<&Span>, span: &Span) -> Fault {
    let before = before.map_or_else(String::new, Span::describe);
    Fault::Format(format!("{} overlaps {before}", span.describe()))
}

/// Quotes and escapes a name from a file for a message, cut to its first 60 characters.
pub(super) fn quoted(name: &str) -> String {
    let short: String = name.chars().take(60).collect();
    let dots = if short.len() < name.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, shape: &[u64]) -> Span {
        let tensor = TensorInfo {
            name: name.into(),
            dtype: "U8".into(),
            shape: shape.to_vec(),
        };
        Span {
            tensor: Some(tensor),
            ..Span::opaque(0, 4)
        }
    }

    #[test]
    fn faults_name_the_spans() {
        let reason = |fault| match fault {
            Fault::Format(reason) => reason,
            Fault::Read(error) => error.to_string(),
        };
        let (first, last) = (named("a", &[4]), named("b\"", &[4]));
        let header = Span::opaque(0, 8);
        for (before, span, want) in [
            (&first, &last, r#"tensor "b\"" overlaps tensor "a""#),
            (&header, &first, r#"tensor "a" overlaps the header"#),
        ] {
            assert_eq!(reason(overlap(Some(before), span)), want);
        }
        let past = end_within(3, &first).map_err(reason);
        assert_eq!(past, Err(r#"tensor "a" ends past the file"#.into()));
        assert_eq!(end_within(4, &first).map_err(reason), Ok(4));
    }

    #[test]
    fn names_are_quoted_and_cut() {
        let long = "\u{e9}".repeat(61);
        let cut = format!("\"{}\"...", "\u{e9}".repeat(60));
        for (name, want) in [
            ("a\nb", "\"a\\nb\""),
            (&long[..120], &cut[..122]),
            (long.as_str(), cut.as_str()),
        ] {
            assert_eq!(quoted(name), want);
        }
    }

    #[test]
    fn stacks_of_matrices_have_rows() {
        for (shape, rows) in [
            (&[5, 3, 2][..], 3),
            (&[7, 5, 3, 2], 3),
            (&[3, 2], 0),
            (&[], 0),
        ] {
            assert_eq!(named("a", shape).matrix_rows(), rows, "{shape:?}");
        }
        assert_eq!(Span::opaque(0, 9).matrix_rows(), 0);
    }

    #[test]
    fn gaps_are_filled_and_faults_refused() {
        type Places = &'static [(u64, u64)];
        let cases: [(u64, Places, Option<Places>); 9] = [
            (0, &[], Some(&[])),
            (9, &[], Some(&[(0, 9)])),
            (
                9,
                &[(4, 2), (0, 3)],
                Some(&[(0, 3), (3, 1), (4, 2), (6, 3)]),
            ),
            (9, &[(9, 0), (2, 0), (0, 9)], Some(&[(0, 9)])),
            (
                u64::MAX,
                &[(1, u64::MAX - 1)],
                Some(&[(0, 1), (1, u64::MAX - 1)]),
            ),
            (9, &[(0, 10)], None),
            (9, &[(10, 1)], None),
            (9, &[(1, u64::MAX)], None),
            (9, &[(0, 5), (4, 1)], None),
        ];
        for (length, places, expected) in cases {
            let spans = places
                .iter()
                .map(|(start, length)| Span::opaque(*start, *length))
                .collect();
            let found = tile(length, spans).ok();
            let found = found.map(|spans| {
                spans
                    .iter()
                    .map(|span| (span.start, span.length))
                    .collect::<Vec<_>>()
            });
            assert_eq!(found.as_deref(), expected, "{places:?}");
        }
    }
}
