//! Finds the mutants of a file, and writes each beside what it stands for.

use std::collections::HashSet;
use std::fmt::Write;
use std::ops::Range;

use proc_macro2::{LineColumn, Span};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Arm, Attribute, Block, ExprBinary, ExprUnary, Pat, Signature};

use crate::edits::Edits;
use crate::operators::{self, Kind};
use crate::values;

/// One mutant.
pub struct Mutant {
    pub id: u32,
    pub place: LineColumn,
    pub function: String,
    pub what: String,
}

/// A file being rewritten.
///
/// Each mutant's code is put between `/*[ID*/` and `/*]*/`, and so is each expression in which mutants stand for its
/// operator, with all their numbers: an error of the compiler can then be traced to a mutant.
pub struct Mutator<'a> {
    pub mutants: Vec<Mutant>,
    /// Functions whose result has no other value that could be written down.
    pub left_out: usize,
    edits: Edits,
    source: &'a str,
    next: u32,
    /// Mutants that do not compile; they keep their numbers.
    dropped: &'a HashSet<u32>,
    /// The type or trait being implemented, and the function, for reports.
    names: Vec<String>,
}

impl<'a> Mutator<'a> {
    pub fn new(source: &'a str, first: u32, dropped: &'a HashSet<u32>) -> Self {
        Self {
            mutants: Vec::new(),
            left_out: 0,
            edits: Edits::default(),
            source,
            next: first,
            dropped,
            names: Vec::new(),
        }
    }

    /// Rewrites the file; returns it and the number after the last mutant's.
    pub fn run(&mut self) -> syn::Result<(String, u32)> {
        let file = syn::parse_file(self.source)?;
        self.visit_file(&file);
        let edits = std::mem::take(&mut self.edits);
        Ok((edits.apply(self.source), self.next))
    }

    /// Gives a mutant its number; `None` if it is one that does not compile.
    fn add(&mut self, span: Span, what: String) -> Option<u32> {
        let id = self.next;
        self.next += 1;
        let function = self.names.join("::");
        let place = span.start();
        let mutant = Mutant {
            id,
            place,
            function,
            what,
        };
        (!self.dropped.contains(&id)).then(|| self.mutants.push(mutant))?;
        Some(id)
    }

    /// Numbers what may stand for an operator.
    fn choices(&mut self, span: Span, from: &str, to: &[&'static str]) -> Vec<(u32, &'static str)> {
        let name = |to: &str| match to {
            "" => format!("delete {from}"),
            _ => format!("replace {from} with {to}"),
        };
        to.iter()
            .filter_map(|&to| Some((self.add(span, name(to))?, to)))
            .collect()
    }

    fn function(&mut self, attributes: &[Attribute], signature: &Signature, body: &Block) {
        if signature.constness.is_some() || skipped(attributes) {
            return;
        }
        self.names.push(signature.ident.to_string());
        let whole = self.names.join("::");
        if signature.unsafety.is_none() && whole != "Default::default" && !body.stmts.is_empty() {
            self.results(signature, body);
        }
        visit::visit_block(self, body);
        self.names.pop();
    }

    fn results(&mut self, signature: &Signature, body: &Block) {
        let values = values::of(&signature.output);
        self.left_out += usize::from(values.is_empty());
        let mut text = String::new();
        for value in values {
            let what = format!("return {}", value.to_string().replace(' ', ""));
            if let Some(id) = self.add(signature.ident.span(), what) {
                let _ = write!(
                    text,
                    " if crate::mutant::is({id}) {{ /*[{id}*/ return {value}; /*]*/ }}"
                );
            }
        }
        let start = body.brace_token.span.open().byte_range().end;
        self.edits.replace(start..start, &text);
    }

    fn operator(&mut self, binary: &ExprBinary) {
        let Some((kind, from, to)) = operators::of(&binary.op) else {
            return;
        };
        if operators::has_let(&binary.left) || operators::has_let(&binary.right) {
            return;
        }
        let choices = self.choices(binary.op.span(), from, to);
        let whole = binary.span().byte_range();
        let between = binary.left.span().byte_range().end..binary.right.span().byte_range().start;
        match kind {
            _ if choices.is_empty() => {}
            Kind::Lazy => self.lazy(whole, between, from, &choices),
            Kind::Comparison => self.both(whole, between, ["&(", "*l", "*r"], from, &choices),
            Kind::Arithmetic => self.both(whole, between, ["(", "l", "r"], from, &choices),
            Kind::Assignment => self.assignment(binary, from, &choices),
        }
    }

    /// `a && b` is `a || b` if all three are inverted, and the other way round.
    fn lazy(
        &mut self,
        whole: Range<usize>,
        between: Range<usize>,
        from: &str,
        choices: &[(u32, &str)],
    ) {
        for (id, _) in choices {
            let flip = format!("crate::mutant::flip({id}, ");
            let before = format!("/*[{id}*/ {flip}{flip}");
            self.edits.surround(whole.clone(), &before, ")) /*]*/");
            self.edits
                .replace(between.clone(), &format!(") {from} {flip}"));
        }
    }

    fn both(
        &mut self,
        whole: Range<usize>,
        between: Range<usize>,
        [open, l, r]: [&str; 3],
        from: &str,
        choices: &[(u32, &str)],
    ) {
        let (opened, closed) = region(choices);
        let chain = chain(&format!("{l} {from} {r}"), choices, |to| {
            format!("{l} {to} {r}")
        });
        let before = format!("{opened} (match ({open}");
        self.edits.surround(
            whole,
            &before,
            &format!(")) {{ (l, r) => {{ {chain} }} }}) {closed}"),
        );
        self.edits.replace(between, &format!("), {open}"));
    }

    /// The right side is worked out first, as the language has it for numbers; the left is written once for each.
    fn assignment(&mut self, binary: &ExprBinary, from: &str, choices: &[(u32, &str)]) {
        let (left, right) = (
            binary.left.span().byte_range(),
            binary.right.span().byte_range(),
        );
        let place = &self.source[left.clone()];
        let (opened, closed) = region(choices);
        let chain = chain(&format!("{place} {from} r"), choices, |to| {
            format!("{place} {to} r")
        });
        let before = format!("{opened} match (");
        let after = format!(") {{ r => {{ {chain} }} }} {closed}");
        self.edits
            .enclose(left.start..right.start, right.end, &before, &after);
    }

    fn guard(&mut self, arm: &Arm) {
        let Some((_, guard)) = &arm.guard else {
            return;
        };
        if operators::has_let(guard) {
            return;
        }
        for (what, join, not) in [("true", "||", ""), ("false", "&&", "!")] {
            if let Some(id) = self.add(guard.span(), format!("replace match guard with {what}")) {
                let before = format!("/*[{id}*/ ({not}crate::mutant::is({id}) {join} (");
                self.edits
                    .surround(guard.span().byte_range(), &before, ")) /*]*/");
            }
        }
    }

    /// Takes an arm out of a `match` whose last arm takes all that is left.
    fn delete_arm(&mut self, arm: &Arm) {
        if let Some(id) = self.add(arm.pat.span(), "delete match arm".to_owned()) {
            let guard = format!(" /*[{id}*/ if !crate::mutant::is({id}) /*]*/");
            self.edits.surround(arm.pat.span().byte_range(), "", &guard);
        }
    }
}

impl<'ast> Visit<'ast> for Mutator<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !skipped(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if skipped(&item.attrs) {
            return;
        }
        let path = item
            .trait_
            .as_ref()
            .map(|(_, path, _)| path.segments.last());
        let name = path.flatten().map(|segment| segment.ident.to_string());
        let is_default = name.as_deref() == Some("Default");
        let kind = &item.self_ty;
        let kind = quote::quote!(#kind).to_string().replace(' ', "");
        self.names.push(if is_default {
            "Default".to_owned()
        } else {
            kind
        });
        visit::visit_item_impl(self, item);
        self.names.pop();
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.names.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.names.pop();
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.function(&item.attrs, &item.sig, body);
        }
    }

    fn visit_expr_binary(&mut self, binary: &'ast ExprBinary) {
        self.operator(binary);
        let assigned = matches!(operators::of(&binary.op), Some((Kind::Assignment, ..)));
        if !assigned {
            self.visit_expr(&binary.left);
        }
        self.visit_expr(&binary.right);
    }

    fn visit_expr_unary(&mut self, unary: &'ast ExprUnary) {
        if let Some(from) = operators::unary(&unary.op) {
            let choices = self.choices(unary.op.span(), from, &[""]);
            if !choices.is_empty() {
                let (opened, closed) = region(&choices);
                let chain = chain(&format!("{from}v"), &choices, |_| "v".to_owned());
                let whole = unary.span().byte_range();
                let operator = whole.start..unary.expr.span().byte_range().start;
                let before = format!("{opened} (match (");
                let after = format!(") {{ v => {{ {chain} }} }}) {closed}");
                self.edits.enclose(operator, whole.end, &before, &after);
            }
        }
        self.visit_expr(&unary.expr);
    }

    fn visit_expr_match(&mut self, found: &'ast syn::ExprMatch) {
        let last = found.arms.last();
        let rest = last.is_some_and(|arm| matches!(arm.pat, Pat::Wild(_)) && arm.guard.is_none());
        for (index, arm) in found.arms.iter().enumerate() {
            self.guard(arm);
            if rest && arm.guard.is_none() && index + 1 < found.arms.len() {
                self.delete_arm(arm);
            }
        }
        visit::visit_expr_match(self, found);
    }

    // What the compiler works out itself cannot be switched.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_pat(&mut self, _: &'ast Pat) {}
    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}

/// Tells whether what has these attributes is left alone: tests, and what runs on some processors only.
fn skipped(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = quote::quote!(#attribute).to_string();
        text.contains("test") || text.contains("target_feature")
    })
}

/// The marks around an expression that has mutants.
fn region(choices: &[(u32, &str)]) -> (String, &'static str) {
    let ids: Vec<_> = choices.iter().map(|(id, _)| id.to_string()).collect();
    (format!("/*[{}*/", ids.join(" ")), "/*]*/")
}

/// Chooses at run time between an expression and the mutants that may stand for it.
fn chain(plain: &str, choices: &[(u32, &str)], make: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    for (id, to) in choices {
        let _ = write!(
            text,
            "if crate::mutant::is({id}) {{ /*[{id}*/ {} /*]*/ }} else ",
            make(to)
        );
    }
    text + "{ " + plain + " }"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(source: &str) -> (String, Vec<String>) {
        let dropped = HashSet::new();
        let mut mutator = Mutator::new(source, 0, &dropped);
        let (text, _) = mutator.run().unwrap();
        syn::parse_file(&text).unwrap();
        let what = mutator.mutants.into_iter().map(|mutant| mutant.what);
        (text, what.collect())
    }

    #[test]
    fn each_part_of_the_language_has_its_mutants() {
        for (source, want) in [
            ("fn f() -> bool { x() }", "return true, return false"),
            ("fn f() { g(); }", "return ()"),
            ("fn f() {}", ""),
            ("fn f() -> impl Iterator { g() }", ""),
            (
                "fn f() -> Result<Option<u8>> { g() }",
                "return Ok(None), return Ok(Some(0)), return Ok(Some(1))",
            ),
            (
                "fn f(a: u8) -> impl T { a < 1 }",
                "replace < with ==, replace < with >, replace < with <=",
            ),
            (
                "fn f() -> impl T { a && b || c }",
                "replace || with &&, replace && with ||",
            ),
            ("fn f() -> impl T { if a && let b = c {} }", ""),
            ("fn f() -> impl T { !a.b() }", "delete !"),
            (
                "fn f() -> impl T { !a == -b }",
                "replace == with !=, delete !, delete -",
            ),
            (
                "fn f() -> impl T { a[i + 1] += b - 1 }",
                "replace += with -=, replace += with *=, replace - with +, replace - with /",
            ),
            (
                "fn f() -> impl T { match a { 1 => 2, _ => 3 } }",
                "delete match arm",
            ),
            (
                "fn f() -> impl T { match a { b if b => 2, c => 3 } }",
                "replace match guard with true, replace match guard with false",
            ),
            ("const F: u8 = 1 + 2; fn f() -> impl T { [0; 1 + 2] }", ""),
            (
                "const fn f() -> u8 { 1 + 2 } #[cfg(test)] mod tests { fn f() -> u8 { 1 + 2 } }",
                "",
            ),
        ] {
            assert_eq!(rewritten(source).1.join(", "), want, "{source}");
        }
    }

    #[test]
    fn expressions_in_each_other_stay_in_order() {
        let (text, _) = rewritten("fn f() -> impl T { a + b * c }");
        let inner = "/*[2 3*/ (match ((b), (c)) { (l, r) => { if crate::mutant::is(2) { /*[2*/ l + r /*]*/ } \
            else if crate::mutant::is(3) { /*[3*/ l / r /*]*/ } else { l * r } } }) /*]*/";
        assert!(
            text.contains(&format!("match ((a), ({inner})) {{ (l, r)")),
            "{text}"
        );
    }
}
