//! What has come out, and how it compares.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Args, Make};
use crate::network::name_of;

/// The figures of one broker; one that could not be measured is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) idle_bytes_per_client: Option<f64>,
    pub(super) connects_per_second: Option<f64>,
    pub(super) qos0_per_second: Option<f64>,
    pub(super) qos1_per_second: Option<f64>,
    pub(super) fan_out_per_second: Option<f64>,
    pub(super) latency_p50_ms: Option<f64>,
    pub(super) latency_p99_ms: Option<f64>,
}

type Values = [Option<f64>; 7];

impl Figures {
    const NAMES: [&str; 7] = [
        "idle B/client",
        "connects/s",
        "QoS 0 msg/s",
        "QoS 1 msg/s",
        "fan-out msg/s",
        "p50 ms",
        "p99 ms",
    ];

    fn values(&self) -> Values {
        let Self {
            idle_bytes_per_client,
            connects_per_second,
            qos0_per_second,
            qos1_per_second,
            fan_out_per_second,
            latency_p50_ms,
            latency_p99_ms,
        } = *self;
        [
            idle_bytes_per_client,
            connects_per_second,
            qos0_per_second,
            qos1_per_second,
            fan_out_per_second,
            latency_p50_ms,
            latency_p99_ms,
        ]
    }

    fn from_values(values: Values) -> Self {
        let [
            idle_bytes_per_client,
            connects_per_second,
            qos0_per_second,
            qos1_per_second,
            fan_out_per_second,
            latency_p50_ms,
            latency_p99_ms,
        ] = values;
        Self {
            idle_bytes_per_client,
            connects_per_second,
            qos0_per_second,
            qos1_per_second,
            fan_out_per_second,
            latency_p50_ms,
            latency_p99_ms,
        }
    }
}

/// What came out for one broker.
pub(super) struct Outcome {
    make: Make,
    figures: Figures,
    /// Of our broker's figures to this one's; absent for our own, and without it.
    ours: Option<Figures>,
}

/// Takes medians, and those of ours against each other's in the same round: the machine is faster in
/// one than in another.
pub(super) fn compare(makes: &[Make], rounds: &[Vec<Figures>]) -> Vec<Outcome> {
    let ours = makes.iter().position(|make| *make == Make::Tidegate);
    let ours = ours.and_then(|index| rounds.get(index));
    let outcomes = makes.iter().zip(rounds).map(|(make, theirs)| Outcome {
        make: *make,
        figures: median(theirs),
        ours: ours
            .filter(|_rounds| *make != Make::Tidegate)
            .map(|ours| ratio(ours, theirs)),
    });
    outcomes.collect()
}

fn median(rounds: &[Figures]) -> Figures {
    Figures::from_values(std::array::from_fn(|index| {
        let values = rounds.iter().filter_map(|round| round.values()[index]);
        middle(values.collect())
    }))
}

fn ratio(ours: &[Figures], theirs: &[Figures]) -> Figures {
    Figures::from_values(std::array::from_fn(|index| {
        let pairs = ours.iter().zip(theirs);
        let ratios = pairs.filter_map(|(ours, theirs)| {
            let theirs = theirs.values()[index].filter(|value| *value > 0.0)?;
            Some(ours.values()[index]? / theirs)
        });
        middle(ratios.collect())
    }))
}

fn middle(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

pub(super) fn print_json(args: &Args, outcomes: &[Outcome]) {
    let brokers: Map<String, Value> = outcomes
        .iter()
        .map(|outcome| {
            let entry = json!({ "figures": outcome.figures, "ours_to_this": outcome.ours });
            (name_of(outcome.make), entry)
        })
        .collect();
    let line = json!({
        "idle": args.idle,
        "connects": args.connects,
        "pairs": args.pairs,
        "rate": args.rate,
        "seconds": args.seconds,
        "rounds": args.rounds,
        "brokers": brokers,
    });
    println!("{line}");
}

pub(super) fn print_table(outcomes: &[Outcome]) {
    print!("{:<12}", "(x: ours)");
    for name in Figures::NAMES {
        print!("{name:>20}");
    }
    println!();
    for outcome in outcomes {
        print!("{:<12}", name_of(outcome.make));
        for (index, value) in outcome.figures.values().into_iter().enumerate() {
            let ratio = outcome.ours.and_then(|ours| ours.values()[index]);
            let ratio = ratio.map(|ratio| format!(" ({ratio:.2}x)"));
            let value = value.map_or_else(|| "-".to_owned(), number);
            print!("{:>20}", value + &ratio.unwrap_or_default());
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
        let round = |value: &Option<f64>| Figures::from_values([*value; 7]);
        values.iter().map(round).collect()
    }

    #[test]
    fn rounds_are_compared_with_the_same_round_of_the_other() {
        let makes = [Make::Tidegate, Make::Mosquitto];
        let ours = rounds(&[Some(8.0), Some(2.0), Some(6.0)]);
        let theirs = rounds(&[Some(4.0), Some(1.0), Some(2.0)]);
        let [first, second] = compare(&makes, &[ours, theirs]).try_into().ok().unwrap();
        assert_eq!(first.figures.qos0_per_second, Some(6.0));
        assert_eq!(first.ours, None);
        assert_eq!(second.ours, Some(Figures::from_values([Some(2.0); 7])));
    }

    #[test]
    fn what_could_not_be_measured_is_left_out() {
        let makes = [Make::Rumqttd, Make::Tidegate];
        let theirs = rounds(&[None, Some(0.0)]);
        let ours = rounds(&[Some(3.0), Some(5.0)]);
        let outcomes = compare(&makes, &[theirs, ours]);
        assert_eq!(outcomes[0].ours, Some(Figures::default()));
        assert_eq!(outcomes[0].figures.latency_p99_ms, Some(0.0));
    }
}
