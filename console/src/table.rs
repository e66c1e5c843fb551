//! Aligned columns.

/// Rows of cells under a head; columns are as wide as their widest cell.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    aligns: Vec<Align>,
    /// What the columns of rows that are gone took.
    widths: Vec<usize>,
}

/// Words to the left, numbers to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

impl Table {
    #[must_use]
    pub fn new(head: &[(&str, Align)]) -> Self {
        let names = head.iter().map(|(name, _)| (*name).to_owned()).collect();
        Self {
            rows: vec![names],
            aligns: head.iter().map(|(_, align)| *align).collect(),
            widths: vec![0; head.len()],
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    #[must_use]
    pub fn render(&self) -> String {
        let widths = self.widths();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).zip(&self.aligns);
            let cells = cells.map(|((cell, width), align)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        self.rows.iter().map(line).collect()
    }

    /// Renders the rows so far and forgets them: later ones line up with them as far as they fit.
    pub fn take(&mut self) -> String {
        let text = self.render();
        self.widths = self.widths();
        self.rows.clear();
        text
    }

    fn widths(&self) -> Vec<usize> {
        let width = |(column, before): (usize, &usize)| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or_default()
                .max(*before)
        };
        self.widths.iter().enumerate().map(width).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Align, Table};

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&[("NAME", Align::Left), ("COUNT", Align::Right)]);
        table.row(vec!["a".to_owned(), "7".to_owned()]);
        table.row(vec!["longer".to_owned(), "123456".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME     COUNT\na            7\nlonger  123456\n"
        );
    }

    #[test]
    fn rows_behind_those_that_were_taken_line_up_with_them() {
        let mut table = Table::new(&[("NAME", Align::Left), ("COUNT", Align::Right)]);
        table.row(vec!["longer".to_owned(), "1".to_owned()]);
        assert_eq!(table.take(), "NAME    COUNT\nlonger      1\n");
        table.row(vec!["a".to_owned(), "7".to_owned()]);
        assert_eq!(table.take(), "a           7\n");
        assert_eq!(table.take(), "");
    }
}
