//! What worlds go through, and mistakes that they find.

use super::*;

/// How many worlds are tried unless `TIDEGATE_SEEDS` says otherwise.
const SEEDS: u64 = 160;

fn live(seed: u64) {
    let mut world = World::new(seed);
    world.run(CHAOS, Mood::Wild);
    world.calm_down();
    world.run(CALM, Mood::Busy);
    world.run(CALM, Mood::Quiet);
    world.check();
    // The last words of one that dies reach some of the others.
    let last = world.nodes.len() - 1;
    world.divided.insert((0, last));
    world.run(LEASE / 8, Mood::Busy);
    world.nodes[last].has_disk = false;
    world.restart(last);
    world.divided.clear();
    world.nodes[last].frozen_until = world.now + CALM;
    world.run(CALM, Mood::Quiet);
    world.check_retained(last);
    // Who begins with nothing, late, is told all the same.
    world.run(CALM, Mood::Quiet);
    world.check_retained(last + 1);
}

/// Two nodes stay parted: what others have of one, the other one has as soon as they have met anew.
fn stay_parted(seed: u64) {
    let mut world = World::new(seed);
    world.calm_down();
    world.run(CALM, Mood::Busy);
    if world.nodes.len() > 2 {
        world.divided.insert((0, 1));
        world.run(2 * LEASE, Mood::Busy);
        world.nodes[2].frozen_until = world.now + 2 * LEASE;
        world.run(2 * LEASE, Mood::Busy);
    }
    world.run(CALM, Mood::Quiet);
    world.check_retained(world.nodes.len());
}

/// Clients publish a lot, and it takes its time; the comparisons that there are come to an end.
fn hurry(seed: u64) {
    let mut world = World::new(seed);
    world.nature.haste = 20;
    world.nature.distance = 200;
    world.run(CHAOS / 2, Mood::Wild);
    world.calm_down();
    world.run(3 * CALM, Mood::Busy);
    let before = world.comparisons;
    world.run(CALM / 2, Mood::Busy);
    assert_eq!(world.comparisons, before, "nodes compare without end");
}

/// Lives through worlds on all cores; the result is the seed of one that ended badly.
fn try_worlds(
    live: fn(u64),
    seeds: impl Iterator<Item = u64> + Send,
    mutant: Option<Mutant>,
) -> Option<u64> {
    let seeds = Mutex::new(seeds);
    let bad = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                mutant::set(mutant);
                while bad.load(Relaxed) == 0 {
                    let Some(seed) = seeds.lock().unwrap().next() else {
                        break;
                    };
                    if std::panic::catch_unwind(|| live(seed)).is_err() {
                        bad.store(seed, Relaxed);
                    }
                }
            });
        }
    });
    Some(bad.into_inner()).filter(|seed| *seed != 0)
}

/// `TIDEGATE_SEEDS` is how many, or one alone, as in `=17`.
#[test]
fn nothing_is_lost_while_both_live_and_all_agree_when_it_is_calm() {
    let wanted = std::env::var("TIDEGATE_SEEDS").unwrap_or_default();
    if let Some(one) = wanted.strip_prefix('=') {
        live(one.parse().unwrap());
        return;
    }
    let seeds = wanted.parse().unwrap_or(SEEDS);
    assert_eq!(try_worlds(live, 1..=seeds, None), None, "a bad world");
}

/// A core that makes this mistake is found out: the worlds are wild enough, and the checks sharp.
fn is_found(mutant: Mutant, worlds: impl Iterator<Item = u64> + Send) {
    is_found_in(live, mutant, worlds);
}

fn is_found_in(life: fn(u64), mutant: Mutant, worlds: impl Iterator<Item = u64> + Send) {
    let found = try_worlds(life, worlds.take(400), Some(mutant));
    assert_eq!(found, None, "found");
}

#[test]
#[should_panic(expected = "found")]
fn messages_that_are_not_in_sessions_are_not_taken() {
    is_found(Mutant::TakesUnseen, 1..);
}

#[test]
#[should_panic(expected = "found")]
fn what_is_said_of_another_stream_does_not_count() {
    is_found(Mutant::MixesStreams, 1..);
}

#[test]
#[should_panic(expected = "found")]
fn item_that_is_not_repeated_is_missed() {
    is_found(Mutant::SkipsOne, 1..);
}

#[test]
#[should_panic(expected = "found")]
fn filters_that_are_on_their_way_are_not_known() {
    is_found(Mutant::KnowsEarly, 1..);
}

#[test]
#[should_panic(expected = "found")]
fn changes_that_are_dropped_are_missed() {
    is_found(Mutant::DropsChanges, (1..).map(|world| world * KINDS));
}

#[test]
#[should_panic(expected = "found")]
fn copies_on_a_node_that_had_lost_this_one_are_counted_on() {
    is_found(Mutant::KeepsLife, 1..);
}

#[test]
#[should_panic(expected = "found")]
fn streams_behind_a_shard_that_hangs_are_too_many() {
    is_found(Mutant::TakesAll, (1..).map(|world| world * KINDS + 1));
}

#[test]
#[should_panic(expected = "found")]
fn nodes_that_judge_by_different_leases_lose_each_other_for_nothing() {
    is_found(Mutant::JudgesAlone, 1..);
}

#[test]
#[should_panic(expected = "found")]
fn last_words_of_who_is_lost_that_some_have_missed_are_told() {
    is_found(Mutant::KeepsLastWords, 1..);
}

#[test]
fn what_one_of_two_that_are_parted_has_comes_to_the_other_by_a_third() {
    let bad = try_worlds(stay_parted, 1..=SEEDS / 4, None);
    assert_eq!(bad, None, "a bad world");
}

#[test]
#[should_panic(expected = "found")]
fn news_that_are_kept_from_others_are_missed() {
    is_found_in(stay_parted, Mutant::KeepsNews, 1..);
}

#[test]
fn publications_do_not_have_nodes_compare_for_ever() {
    let bad = try_worlds(hurry, 1..=SEEDS / 20, None);
    assert_eq!(bad, None, "a bad world");
}

#[test]
#[should_panic(expected = "found")]
fn pages_that_overtake_publications_are_no_news() {
    is_found_in(hurry, Mutant::TakesAllForNews, 1..);
}
