//! Figures of what is compared: medians over rounds, ratios round by round, and how both are shown.

use serde_json::{Map, Value, json};

/// What was measured of one subject in one round, in an order that is the same for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures(Vec<Figure>);

#[derive(Clone, Copy, Debug, PartialEq)]
struct Figure {
    /// Its name in JSON.
    key: &'static str,
    title: &'static str,
    /// Absent if it could not be measured.
    value: Option<f64>,
}

impl Figures {
    /// Each with its name in JSON, its title in the table, and its value if there is one.
    pub(super) fn new<const N: usize>(
        figures: [(&'static str, &'static str, Option<f64>); N],
    ) -> Self {
        let figures = figures.map(|(key, title, value)| Figure { key, title, value });
        Self(figures.into())
    }

    /// Figure by figure.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let first = rounds.first().cloned().unwrap_or_default();
        first.with(|index| middle(rounds.iter().filter_map(|round| round.value(index))))
    }

    /// Figure by figure: the median over rounds, each against the same round of the others, as the
    /// machine is faster in one than in another. What the others have none of has no ratio.
    pub(super) fn ratio(ours: &[Self], others: &[Self]) -> Self {
        let first = ours.first().cloned().unwrap_or_default();
        first.with(|index| {
            let pairs = ours.iter().zip(others);
            middle(pairs.filter_map(|(ours, other)| {
                let other = other.value(index).filter(|value| *value > 0.0)?;
                Some(ours.value(index)? / other)
            }))
        })
    }

    fn with(self, value: impl Fn(usize) -> Option<f64>) -> Self {
        let figures = self.0.into_iter().enumerate();
        let figures = figures.map(|(index, figure)| Figure {
            value: value(index),
            ..figure
        });
        Self(figures.collect())
    }

    fn value(&self, index: usize) -> Option<f64> {
        self.0.get(index)?.value
    }

    fn json(&self) -> Value {
        let named = self.0.iter();
        let named = named.map(|figure| (figure.key.to_owned(), json!(figure.value)));
        Value::Object(named.collect())
    }
}

fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// What has come out for one subject.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) figures: Figures,
    /// Absent where there is nothing to compare with.
    pub(super) ratios: Option<Figures>,
}

/// All outcomes by name; `ratios` is what these are called.
pub(super) fn json(outcomes: &[Outcome], ratios: &str) -> Map<String, Value> {
    let entries = outcomes.iter().map(|outcome| {
        let ratio = outcome.ratios.as_ref().map(Figures::json);
        let entry = json!({ "figures": outcome.figures.json(), ratios: ratio });
        (outcome.name.clone(), entry)
    });
    entries.collect()
}

/// A line for each; `ratios` says what those in parentheses are.
pub(super) fn print_table(outcomes: &[Outcome], ratios: &str) {
    let titles = outcomes.first().map(|outcome| outcome.figures.0.as_slice());
    print!("{ratios:<16}");
    for figure in titles.unwrap_or_default() {
        print!("{:>22}", figure.title);
    }
    println!();
    for outcome in outcomes {
        print!("{:<16}", outcome.name);
        for (index, figure) in outcome.figures.0.iter().enumerate() {
            let ratio = outcome
                .ratios
                .as_ref()
                .and_then(|ratios| ratios.value(index));
            let ratio = ratio.map(|ratio| format!(" ({ratio:.2}x)"));
            let value = figure.value.map_or_else(|| "-".to_owned(), number);
            print!("{:>22}", value + &ratio.unwrap_or_default());
        }
        println!();
    }
}

fn number(value: f64) -> String {
    if value < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(values: &[Option<f64>]) -> Vec<Figures> {
        let round = |value: &Option<f64>| {
            Figures::new([("first", "1st", *value), ("second", "2nd", *value)])
        };
        values.iter().map(round).collect()
    }

    #[test]
    fn the_median_is_taken_figure_by_figure() {
        let three = rounds(&[Some(3.0), Some(1.0), Some(2.0)]);
        assert_eq!(Figures::median(&three), rounds(&[Some(2.0)])[0]);
        assert_eq!(Figures::median(&[]), Figures::default());
    }

    #[test]
    fn rounds_are_compared_with_the_same_round_of_the_other() {
        let ours = rounds(&[Some(8.0), Some(2.0), Some(6.0)]);
        let others = rounds(&[Some(4.0), Some(1.0), Some(2.0)]);
        assert_eq!(Figures::ratio(&ours, &others), rounds(&[Some(2.0)])[0]);
    }

    #[test]
    fn what_could_not_be_measured_is_left_out() {
        let none = rounds(&[None, Some(0.0)]);
        assert_eq!(Figures::median(&none), rounds(&[Some(0.0)])[0]);
        let ours = rounds(&[Some(3.0), Some(5.0)]);
        assert_eq!(Figures::ratio(&ours, &none), rounds(&[None])[0]);
        assert_eq!(Figures::ratio(&none, &ours), rounds(&[Some(0.0)])[0]);
    }

    #[test]
    fn outcomes_are_told_by_name() {
        let outcome = Outcome {
            name: "a".to_owned(),
            figures: rounds(&[Some(2.0)])[0].clone(),
            ratios: None,
        };
        let told = json(&[outcome], "to_b");
        let expected = json!({"figures": {"first": 2.0, "second": 2.0}, "to_b": null});
        assert_eq!(told["a"], expected);
    }
}
