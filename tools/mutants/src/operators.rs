//! What an operator may be taken for.

use syn::{BinOp, Expr, UnOp};

/// How an operator's operands are to be given to it and to what stands for it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `&&` and `||`, which do not always evaluate the second.
    Lazy,
    /// Comparisons, which borrow both.
    Comparison,
    /// All that take both by value.
    Arithmetic,
    /// `+=` and its like.
    Assignment,
}

/// Returns an operator's kind, its text and what may stand for it; `None` for an operator that is left alone.
pub fn of(operator: &BinOp) -> Option<(Kind, &'static str, &'static [&'static str])> {
    use Kind::{Arithmetic, Assignment, Comparison, Lazy};
    Some(match operator {
        BinOp::And(_) => (Lazy, "&&", &["||"]),
        BinOp::Or(_) => (Lazy, "||", &["&&"]),
        BinOp::Eq(_) => (Comparison, "==", &["!="]),
        BinOp::Ne(_) => (Comparison, "!=", &["=="]),
        BinOp::Lt(_) => (Comparison, "<", &["==", ">", "<="]),
        BinOp::Gt(_) => (Comparison, ">", &["==", "<", ">="]),
        BinOp::Le(_) => (Comparison, "<=", &[">"]),
        BinOp::Ge(_) => (Comparison, ">=", &["<"]),
        BinOp::Add(_) => (Arithmetic, "+", &["-", "*"]),
        BinOp::Sub(_) => (Arithmetic, "-", &["+", "/"]),
        BinOp::Mul(_) => (Arithmetic, "*", &["+", "/"]),
        BinOp::Div(_) => (Arithmetic, "/", &["%", "*"]),
        BinOp::Rem(_) => (Arithmetic, "%", &["/", "+"]),
        BinOp::BitAnd(_) => (Arithmetic, "&", &["|", "^"]),
        BinOp::BitOr(_) => (Arithmetic, "|", &["&", "^"]),
        BinOp::BitXor(_) => (Arithmetic, "^", &["|", "&"]),
        BinOp::Shl(_) => (Arithmetic, "<<", &[">>"]),
        BinOp::Shr(_) => (Arithmetic, ">>", &["<<"]),
        BinOp::AddAssign(_) => (Assignment, "+=", &["-=", "*="]),
        BinOp::SubAssign(_) => (Assignment, "-=", &["+=", "/="]),
        BinOp::MulAssign(_) => (Assignment, "*=", &["+=", "/="]),
        BinOp::DivAssign(_) => (Assignment, "/=", &["%=", "*="]),
        BinOp::BitAndAssign(_) => (Assignment, "&=", &["|=", "^="]),
        BinOp::BitOrAssign(_) => (Assignment, "|=", &["&=", "^="]),
        BinOp::BitXorAssign(_) => (Assignment, "^=", &["|=", "&="]),
        BinOp::ShlAssign(_) => (Assignment, "<<=", &[">>="]),
        BinOp::ShrAssign(_) => (Assignment, ">>=", &["<<="]),
        _ => return None,
    })
}

/// Returns the text of a unary operator that may be left out.
pub fn unary(operator: &UnOp) -> Option<&'static str> {
    match operator {
        UnOp::Not(_) => Some("!"),
        UnOp::Neg(_) => Some("-"),
        _ => None,
    }
}

/// Tells whether an operand of `&&` is a `let`, or has one.
pub fn has_let(operand: &Expr) -> bool {
    match operand {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}
