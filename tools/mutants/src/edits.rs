//! Insertions and replacements in a text, all given by places in the original.

use std::cmp::Reverse;
use std::ops::Range;

/// What is to be changed in one file.
#[derive(Default)]
pub struct Edits(Vec<Edit>);

struct Edit {
    place: Range<usize>,
    order: Order,
    text: String,
}

/// Of edits at one place, ends of expressions come before what follows them; of two ends, the inner one's is first, and
/// of two beginnings, the outer one's. Expressions are seen from the outside in.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    End(Reverse<usize>),
    Between,
    Start(usize),
}

impl Edits {
    /// Puts `before` and `after` around a range.
    pub fn surround(&mut self, range: Range<usize>, before: &str, after: &str) {
        self.enclose(range.start..range.start, range.end, before, after);
    }

    /// Replaces the beginning of an expression, and puts `after` at its end.
    pub fn enclose(&mut self, front: Range<usize>, end: usize, before: &str, after: &str) {
        let seen = self.0.len();
        self.push(front, Order::Start(seen), before);
        self.push(end..end, Order::End(Reverse(seen)), after);
    }

    /// Replaces a range in which nothing else is edited.
    pub fn replace(&mut self, range: Range<usize>, text: &str) {
        self.push(range, Order::Between, text);
    }

    fn push(&mut self, place: Range<usize>, order: Order, text: &str) {
        let text = text.to_owned();
        self.0.push(Edit { place, order, text });
    }

    /// Returns the text with all edits made.
    pub fn apply(mut self, text: &str) -> String {
        self.0
            .sort_by(|a, b| (a.place.start, &a.order).cmp(&(b.place.start, &b.order)));
        let (mut out, mut at) = (String::new(), 0);
        for edit in &self.0 {
            out += &text[at..edit.place.start];
            out += &edit.text;
            at = edit.place.end;
        }
        out + &text[at..]
    }
}
