//! What may be shown on a terminal, and how quantities are written.

pub use crate::count::counted;

/// Replaces control characters, which could steer a terminal, by their escapes; line ends stay.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same for what has to be one line: a name with a line end cannot pretend to be another line.
pub fn escape_line(text: &str) -> String {
    escape(text).replace('\n', "\\n")
}

/// Writes a number of bytes with three digits and a decimal unit (1 MB is 10^6 bytes).
pub fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{} {unit}", three_digits(value))
            };
        }
        value /= 1000.0;
    }
    format!("{} TB", three_digits(value))
}

fn three_digits(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

/// Writes `part` as a share of `whole`.
pub fn percent(part: u64, whole: u64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let share = if whole == 0 {
        0.0
    } else {
        100.0 * part as f64 / whole as f64
    };
    format!("{share:.1} %")
}

/// Writes bytes in a number of seconds as GB/s (10^9 bytes a second).
pub fn rate(count: u64, seconds: f64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / seconds.max(1e-9) / 1e9;
    format!("{rate:.2} GB/s")
}

/// Writes bytes in a number of seconds as MB/s (10^6 bytes a second), for networks.
#[cfg(feature = "hub")]
pub fn megabytes_per_second(count: u64, seconds: f64) -> String {
    #[allow(clippy::cast_precision_loss)]
    let rate = count as f64 / seconds.max(1e-9) / 1e6;
    format!("{rate:.1} MB/s")
}

/// Lays out rows as a table: the first column, and that of names called "base", to the left, the others to the right.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let cells =
        |row: &[String], column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            rows.iter()
                .map(|row| cells(row, column))
                .max()
                .unwrap_or(0)
                .max(title.chars().count())
        })
        .collect();
    let left: Vec<bool> = header.iter().map(|title| *title == "base").collect();
    let header: Vec<String> = header.iter().map(ToString::to_string).collect();
    std::iter::once(&header)
        .chain(rows)
        .map(|row| line(row, &widths, &left))
        .collect()
}

fn line(row: &[String], widths: &[usize], left: &[bool]) -> String {
    let cells = row
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(column, (cell, width))| {
            if column == 0 || left.get(column) == Some(&true) {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
    let line = cells.collect::<Vec<_>>().join("  ");
    format!("{}\n", line.trim_end())
}

/// The most memory that this process has held, in bytes, where the system tells (Linux).
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_readable() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (30_682_096, "30.7 MB"),
            (999_600_000, "1.00 GB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(bytes(count), text);
        }
        assert_eq!(percent(1, 8), "12.5 %");
        assert_eq!(percent(0, 0), "0.0 %");
        assert_eq!(rate(3_000_000_000, 2.0), "1.50 GB/s");
        #[cfg(feature = "hub")]
        assert_eq!(megabytes_per_second(3_000_000, 2.0), "1.5 MB/s");
    }

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(escape("a\x1b[2Jb\u{9b}c\nd"), "a\\u{1b}[2Jb\\u{9b}c\nd");
    }

    #[test]
    fn tables_line_up() {
        let text = table(&["a", "bb"], &[vec!["xyz".into(), "1".into()]]);
        assert_eq!(text, "a    bb\nxyz   1\n");
        let text = table(&["a", "base"], &[vec!["x".into(), "y".into()]]);
        assert_eq!(text, "a  base\nx  y\n");
    }
}
