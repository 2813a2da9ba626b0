//! Rewrites source files of a crate so that one build holds all their mutants, of which `MUTANT=ID` chooses one.
//!
//!     mutants SOURCE_DIR TARGET_DIR DROPPED FILE...
//!
//! Each FILE is read below the one directory and written below the other. DROPPED is a file with the numbers of mutants
//! that do not compile. Prints a line for each mutant: number, file, line, column, function and what is done, with tabs
//! between; then, on the standard error, how many functions have a result that no other value can be written down for.

mod edits;
mod mutate;
mod operators;
mod values;

use std::collections::HashSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use mutate::Mutator;

/// The module that the rewritten files ask which mutant is on.
const SWITCH: &str = include_str!("switch.rs");

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(Into::into).collect();
    let [source, target, dropped, files @ ..] = arguments.as_slice() else {
        return Err("usage: mutants SOURCE_DIR TARGET_DIR DROPPED FILE...".into());
    };
    let numbers = fs::read_to_string(dropped)?;
    let dropped = numbers
        .lines()
        .map(str::parse)
        .collect::<Result<HashSet<u32>, _>>()?;
    let (mut next, mut left_out) = (0, 0);
    for file in files {
        let text = fs::read_to_string(source.join(file))?;
        let mut mutator = Mutator::new(&text, next, &dropped);
        let (rewritten, after) = mutator
            .run()
            .map_err(|error| format!("{}: {error}", file.display()))?;
        write(&target.join(file), &rewritten)?;
        mutator.mutants.iter().for_each(|mutant| {
            let (line, column) = (mutant.place.line, mutant.place.column + 1);
            let (id, file, function, what) =
                (mutant.id, file.display(), &mutant.function, &mutant.what);
            println!("{id}\t{file}\t{line}\t{column}\t{function}\t{what}");
        });
        (next, left_out) = (after, left_out + mutator.left_out);
    }
    eprintln!("{left_out} functions are left out: no other result can be written down");
    let library = fs::read_to_string(source.join("src/lib.rs"))?;
    write(
        &target.join("src/lib.rs"),
        &format!("{library}\nmod mutant;\n"),
    )?;
    write(&target.join("src/mutant.rs"), SWITCH)?;
    Ok(())
}

/// Leaves a file alone that has the text already, so that it is not compiled again.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)
}
