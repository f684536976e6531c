//! Columns for people. Widths count characters without colour codes.

use super::Style;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Rows under a dimmed heading line, two spaces between the columns.
pub struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(head: impl IntoIterator<Item = (&'static str, Align)>) -> Self {
        Self { head: head.into_iter().collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub fn render(&self, style: Style) -> String {
        let widths: Vec<usize> = self
            .head
            .iter()
            .enumerate()
            .map(|(column, (title, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell));
                cells.chain([title.len()]).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        let head: Vec<String> = self.head.iter().map(|(title, _)| style.dim(title)).collect();
        self.line(&mut text, &head, &widths);
        for row in &self.rows {
            self.line(&mut text, row, &widths);
        }
        text
    }

    fn line(&self, text: &mut String, cells: &[String], widths: &[usize]) {
        let mut line = String::new();
        for ((cell, wanted), (_, align)) in cells.iter().zip(widths).zip(&self.head) {
            let pad = " ".repeat(wanted.saturating_sub(width(cell)));
            match align {
                Align::Left => line.extend([cell.as_str(), &pad]),
                Align::Right => line.extend([pad.as_str(), cell]),
            }
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// Characters shown, escape sequences not counted.
fn width(text: &str) -> usize {
    let mut count = 0;
    let mut escape = false;
    for c in text.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (false, _) => count += 1,
            (true, _) => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_columns_whatever_their_colour() {
        let mut table = Table::new([("NAME", Align::Left), ("SIZE", Align::Right)]);
        table.row([Style::new(true).good("a"), "10".into()]);
        table.row(["long".into(), "5".into()]);
        let plain = table.render(Style::new(false));
        assert_eq!(plain, "NAME  SIZE\n\x1b[32ma\x1b[0m       10\nlong     5\n");
    }
}
