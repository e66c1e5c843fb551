//! Nodes on one virtual clock and a virtual network: whatever happens to them, there are not two
//! Active routers for longer than the protocol allows once the network is whole, nor none.

mod world;

use std::time::Duration;

use proptest::prelude::*;

use super::advert::{Interval, Priority, Version};
use super::machine::tests::bench::{ip, ms, settings};
use super::role::Hold;
use super::settings::{Preemption, Settings};
use world::World;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Adverts of one virtual router no longer get from the first node to the second.
    Cut {
        from: usize,
        to: usize,
        member: usize,
    },
    /// Adverts get everywhere again.
    Heal,
    /// So many adverts in a hundred are lost.
    Lose(u64),
    /// A node dies without a word.
    Crash(usize),
    /// A node is stopped as it should be.
    Stop(usize),
    /// A node is started again.
    Start(usize),
    /// A node stands still for so many intervals, and all that it should have done waits.
    Stall {
        node: usize,
        intervals: u32,
    },
    SetPriority {
        node: usize,
        priority: u8,
    },
    Release {
        node: usize,
        member: usize,
        hold: Hold,
    },
    Resume {
        node: usize,
        member: usize,
        hold: Hold,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let hold = prop_oneof![Just(Hold::Operator), Just(Hold::Fault)];
    let (node, member) = (0..3_usize, 0..2_usize);
    prop_oneof![
        3 => (0..3_usize, 0..3_usize, member.clone())
            .prop_map(|(from, to, member)| Event::Cut { from, to, member }),
        2 => Just(Event::Heal),
        2 => (0..60_u64).prop_map(Event::Lose),
        2 => node.clone().prop_map(Event::Crash),
        1 => node.clone().prop_map(Event::Stop),
        3 => node.clone().prop_map(Event::Start),
        1 => (node.clone(), 1..20_u32)
            .prop_map(|(node, intervals)| Event::Stall { node, intervals }),
        2 => (node.clone(), 0..=255_u8)
            .prop_map(|(node, priority)| Event::SetPriority { node, priority }),
        1 => (node.clone(), member.clone(), hold.clone())
            .prop_map(|(node, member, hold)| Event::Release { node, member, hold }),
        2 => (node, member, hold)
            .prop_map(|(node, member, hold)| Event::Resume { node, member, hold }),
    ]
}

/// A history: so many hundredths of an interval pass, then something happens.
fn history() -> impl Strategy<Value = Vec<(u32, Event)>> {
    prop::collection::vec((0..800_u32, event()), 0..25)
}

/// How one node is set up.
#[derive(Clone, Copy, Debug)]
struct Setup {
    priority: u8,
    /// In units of the slowest node's interval; VRRPv2 has one for all.
    haste: u16,
    preemption: Option<u32>,
}

fn setup() -> impl Strategy<Value = Setup> {
    let priority = prop_oneof![Just(100_u8), 1..=254_u8, Just(255_u8)];
    let haste = prop_oneof![3 => Just(1_u16), 1 => 2..=4_u16];
    let preemption = prop_oneof![Just(None), Just(Some(0)), (1..8_u32).prop_map(Some)];
    (priority, haste, preemption).prop_map(|(priority, haste, preemption)| Setup {
        priority,
        haste,
        preemption,
    })
}

/// The settings of a node's routers, one for each group member.
fn routers(
    version: Version,
    interval: u16,
    members: u8,
    node: usize,
    setup: Setup,
) -> Vec<Settings> {
    let interval = match version {
        Version::V2 => Interval::centiseconds(100),
        Version::V3 => Interval::centiseconds((interval / setup.haste).max(1)),
    };
    let interval = interval.unwrap();
    let preemption = |intervals| Preemption::After(interval.duration() * intervals);
    let router = |member: u8| Settings {
        version,
        interval,
        source: ip(&format!("10.0.{member}.{}", node + 1)),
        preemption: setup.preemption.map_or(Preemption::Never, preemption),
        ..settings(setup.priority)
    };
    (0..members).map(router).collect()
}

fn run(world: &mut World, history: &[(u32, Event)]) {
    for (pause, event) in history {
        world.run(world.slowest() * *pause / 100);
        let member = |member: usize| member % world.members();
        match *event {
            Event::Cut {
                from,
                to,
                member: of,
            } => world.cut(from, to, member(of)),
            Event::Heal => world.heal(),
            Event::Lose(percent) => world.lose(percent),
            Event::Crash(node) => world.crash(node),
            Event::Stop(node) => world.stop(node),
            Event::Start(node) => world.start(node),
            Event::Stall { node, intervals } => world.stall(node, world.slowest() * intervals),
            Event::SetPriority { node, priority } => {
                world.for_each_of(node, |machine, _| machine.set_priority(Priority(priority)));
            }
            Event::Release {
                node,
                member: of,
                hold,
            } => {
                world.with(node, member(of), |machine, now| machine.release(hold, now));
            }
            Event::Resume {
                node,
                member: of,
                hold,
            } => {
                world.with(node, member(of), |machine, now| machine.resume(hold, now));
            }
        }
    }
    world.heal();
    world.lose(0);
}

/// Runs until nothing can be open any more: each node may preempt the one before.
fn settle(world: &mut World) {
    let (nodes, preemption) = (4, 8);
    world.run((world.bound() + world.slowest() * preemption) * nodes);
    world.check_settled();
    let active = world.actives();
    world.run(world.bound() * 3);
    assert_eq!(world.actives(), active, "somebody else without a reason");
}

fn interval() -> impl Strategy<Value = u16> {
    prop_oneof![Just(100_u16), Just(10), Just(4), Just(1)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn two_or_three_nodes_never_have_two_actives_for_long_nor_none(
        setups in prop::collection::vec(setup(), 2..=3),
        is_v2: bool,
        interval in interval(),
        seed: u64,
        history in history(),
    ) {
        let version = if is_v2 { Version::V2 } else { Version::V3 };
        let nodes = setups.iter().enumerate();
        let nodes = nodes.map(|(at, setup)| routers(version, interval, 1, at, *setup));
        let mut world = World::new(nodes.collect(), seed);
        run(&mut world, &history);
        settle(&mut world);
    }

    #[test]
    fn groups_of_two_are_active_together(
        setups in prop::collection::vec(setup(), 2),
        interval in interval(),
        seed: u64,
        history in history(),
    ) {
        let nodes = setups.iter().enumerate();
        let nodes = nodes.map(|(at, setup)| routers(Version::V3, interval, 2, at, *setup));
        let mut world = World::new(nodes.collect(), seed);
        run(&mut world, &history);
        settle(&mut world);
    }
}

/// Two nodes that have been apart for nine seconds, each Active.
fn apart() -> World {
    let node = |at, priority| {
        let setup = Setup {
            priority,
            haste: 1,
            preemption: Some(0),
        };
        routers(Version::V3, 100, 1, at, setup)
    };
    let mut world = World::new(vec![node(0, 200), node(1, 100)], 1);
    world.run(ms(10_000));
    assert_eq!(world.actives(), [vec![0]]);
    world.cut(0, 1, 0);
    world.cut(1, 0, 0);
    world.run(ms(9_000));
    assert_eq!(world.actives(), [vec![0, 1]]);
    world
}

#[test]
fn after_a_partition_the_address_is_announced_within_one_interval() {
    for phase in 0..100 {
        let mut world = apart();
        world.run(ms(10 * phase));
        world.forget_announcements();
        world.heal();
        world.run(Duration::from_millis(1_000) + world.delay() * 2);
        assert_eq!(world.actives(), [vec![0]]);
        assert!(world.announcements(0) > 0, "heal at {phase} hundredths");
    }
}

#[test]
fn a_planned_release_leaves_no_gap() {
    let mut world = apart();
    world.heal();
    world.run(ms(10_000));
    world.forget_gaps();
    world.with(0, 0, |machine, now| machine.release(Hold::Operator, now));
    world.run(ms(10_000));
    assert_eq!(world.actives(), [vec![1]]);
    assert_eq!(world.longest_gap(), Duration::ZERO);
}
