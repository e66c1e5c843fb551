//! Tests of the state machine.
//!
//! Each MUST of RFC 9568, 5 to 8, that concerns [`super::super`], with the errata 8298 to 8301,
//! and where it is tested: `+` for what keeps to it, `-` for what does not, `both` for a test of
//! either. `p`, `s` and `f` are the tests of `packet`, `settings` and `frame`, `r` and `o` those of `rfc`
//! and `ours` here; `d`, `k` and `v` are privileged: `datapath/neighbours.rs`, `vrrp_kill.rs` and `vrrp.rs`.
//!
//! - 5.1.1.3, 5.1.2.3: TTL or Hop Limit is sent as 255
//!   + `s::adverts_go_from_the_primary_address_to_the_group_with_255_hops`
//!   - no setting changes it
//! - 5.1.1.3, 5.1.2.3, 7.1: others are discarded
//!   + `p::hops_of_255_are_asked_for` (both)
//! - 5.2.2, 7.1: unknown types are discarded
//!   + `p::types_other_than_advertisement_are_refused` (both)
//! - 5.2.4: an owner has priority 255
//!   + `r::an_owner_has_priority_255_whatever_tracking_finds`
//!   - `r::others_have_priorities_from_1_to_254_whatever_tracking_finds`
//! - 5.2.4: others have 1 to 254
//!   + `r::others_have_priorities_from_1_to_254_whatever_tracking_finds`
//!   - `s::a_priority_of_zero_is_unfit`
//! - 5.2.5, 7.1: without addresses it is ignored
//!   + `p::adverts_without_addresses_are_refused` (both)
//! - 5.2.6: Reserve is sent as zero, and ignored
//!   + `p::what_is_reserved_is_sent_as_zero_and_ignored` (both)
//! - 5.2.8, 7.1: the checksum is verified
//!   + `p::checksums_are_verified`
//!   + `p::both_dialects_are_understood_over_ipv4`
//!   - `p::checksums_are_verified`
//!   - `p::the_message_alone_is_no_checksum_over_ipv6`
//! - 5.2.9: all addresses are of the packet's family
//!   + `s::the_usual_settings_are_fit`
//!   - `p::addresses_are_of_one_family`
//!   - `s::source_and_addresses_must_be_of_one_family`
//! - 5.2.9, 6.1, 7.1: the first of IPv6 is link-local
//!   + `p::over_ipv6_the_first_address_must_be_link_local`
//!   + `s::the_first_address_of_ipv6_must_be_link_local` (both)
//! - 6.1: an owner preempts whatever Preempt_Mode
//!   + `r::an_owner_preempts_whatever_preempt_mode_says`
//!   - `r::a_backup_that_does_not_preempt_follows_a_lower_active`
//! - 6.4.1: an owner starts as Active
//!   + `r::an_owner_starts_as_active`
//!   - `r::others_start_as_backup_with_their_own_interval`
//! - 6.4.2: a Backup answers and accepts nothing for the addresses
//!   + `r::a_backup_neither_accepts_nor_announces`
//!   - `r::an_active_accepts_if_it_owns_the_addresses_or_accept_mode_says_so`
//! - 6.4.2, 8.1.2, 8.2.2: a Backup's host answers no ARP request and no neighbour solicitation
//!   + `d::a_router_that_is_not_active_is_not_answered_for`
//!   + `k::a_stopped_daemons_host_tells_nobody_that_it_has_the_address`
//!   + `k::a_killed_daemons_host_tells_nobody_that_it_has_the_address`
//!   - `d::an_active_router_is_answered_for_as_long_as_its_daemon_says_so`
//! - 6.4.2: a Backup does not have the addresses, so nothing to them is accepted
//!   + `v::one_of_two_nodes_has_the_address_and_tells_of_it` (both)
//! - 6.4.2: shut down: no timer, Initialize
//!   + `r::a_backup_that_is_shut_down_is_in_initialize_without_a_timer`
//!   - `r::a_backup_becomes_active_when_its_timer_fires`
//! - 6.4.2: the timer fires: advert, announcements, Active
//!   + `r::a_backup_becomes_active_when_its_timer_fires`
//!   - `r::a_backup_stays_backup_until_its_timer_fires`
//! - 6.4.2: priority 0: Skew_Time
//!   + `r::a_backup_waits_its_skew_time_after_a_release`
//!   + `r::skew_time_after_a_release_is_by_the_interval_of_the_active_before`
//!   - `r::a_backup_does_not_wait_its_skew_time_alone_after_other_adverts`
//! - 6.4.2: higher, equal, or no Preempt_Mode: the timer is set by the advert
//!   + `r::a_backup_follows_the_interval_of_a_higher_or_equal_active`
//!   + `r::a_backup_that_does_not_preempt_follows_a_lower_active`
//!   - `r::a_backup_that_preempts_discards_adverts_of_a_lower_active`
//! - 6.4.2: lower and Preempt_Mode: discarded
//!   + `r::a_backup_that_preempts_discards_adverts_of_a_lower_active`
//!   - `r::a_backup_that_preempts_does_not_discard_adverts_of_an_equal_active`
//! - 6.4.3: an Active accepts if it is owner or Accept_Mode is set
//!   + `r::an_active_accepts_if_it_owns_the_addresses_or_accept_mode_says_so`
//!   - `r::an_active_that_owns_nothing_does_not_accept_without_accept_mode`
//! - 6.4.3, 8.1.2, 8.2.2: an Active's host answers ARP requests and neighbour solicitations
//!   + `d::an_active_router_is_answered_for_as_long_as_its_daemon_says_so`
//!   - `d::a_router_that_is_not_active_is_not_answered_for`
//! - 6.4.3: shut down: priority 0, Initialize
//!   + `r::an_active_that_is_shut_down_releases_its_role`
//!   - `r::an_active_that_is_not_shut_down_does_not_release_its_role`
//! - 6.4.2, 6.4.3: gratuitous ARP and unsolicited neighbour advertisements, and what they say
//!   + `f::gratuitous_arp_asks_everybody_for_the_address_itself`
//!   + `f::neighbor_advertisement_overrides_and_its_checksum_is_right`
//!   + `f::a_router_says_that_it_is_one` (both)
//!   - `o::nothing_is_announced_after_the_role_is_gone`
//! - 6.4.3: Adver_Timer fires: advert, timer
//!   + `r::an_active_sends_an_advert_each_interval`
//!   - `r::an_active_sends_nothing_before_its_interval_is_over`
//! - 6.4.3: priority 0: advert, timer
//!   + `r::an_active_answers_a_release_and_starts_its_interval_again`
//!   - `r::an_active_does_not_start_its_interval_again_for_other_adverts`
//! - 6.4.3: higher priority: Backup, by its interval
//!   + `r::an_active_yields_to_a_higher_priority_and_follows_its_interval`
//!   - `r::an_active_does_not_yield_to_a_lower_priority_with_a_higher_address`
//! - 6.4.3: equal priority, higher address: the same
//!   + `r::an_active_yields_to_an_equal_priority_with_a_higher_address`
//!   - `r::an_active_does_not_yield_to_an_equal_priority_with_a_lower_address`
//! - 6.4.3: else: discarded, advert
//!   + `r::an_active_answers_a_lower_priority_with_an_advert`
//!   - `o::who_yields_says_so_once`
//! - 7.1: the version is verified
//!   + `p::versions_other_than_two_and_three_are_refused`
//!   + `s::adverts_of_the_other_version_are_refused` (both)
//! - 7.1: the packet is complete
//!   + `p::adverts_that_are_not_complete_are_refused` (both)
//! - 7.1: the VRID is one of the interface's
//!   + `s::adverts_of_other_virtual_routers_are_refused`
//!   + `p::a_vrid_of_zero_is_refused` (both)
//! - 7.1: the interval is not zero
//!   + `p::an_interval_of_zero_is_refused` (both)
//! - 7.1: who fails a check is discarded
//!   + `r::an_active_yields_to_a_higher_priority_and_follows_its_interval`
//!   - `o::a_refused_advert_changes_nothing_but_its_counter`
//!   - `tests/adverts.rs`
//! - 7.1: an owner hears other owners
//!   + `r::of_two_owners_the_one_with_the_lower_address_yields`
//!   + `s::a_second_owner_is_remarked` (both)
//! - 7.2: the fields are filled in, and the checksum
//!   + `s::adverts_are_filled_in_with_the_configuration`
//!   + `p::what_is_sent_is_what_keepalived_sends`
//!   - no input changes it
//! - 7.2: from the primary address to the group
//!   + `s::adverts_go_from_the_primary_address_to_the_group_with_255_hops`
//!   - `s::in_unicast_adverts_go_to_each_peer`
//! - 8.1.2, 8.2.2: announcements wait for the addresses
//!   + `r::announcements_wait_until_the_addresses_are_in_place`
//!   - `r::announcements_do_not_wait_if_the_addresses_are_in_place`
//!
//! The others concern virtual MAC addresses (6.4.2, 6.4.3, 7.2, 7.4, 8.1, 8.2), routers between hosts
//! (5.1.1.2, 5.1.2.2, redirects, router advertisements), or both versions at once (8.4.2).

pub(in crate::core::vrrp) mod bench;
mod ours;
mod rfc;

/// The list above names no test that is not there.
#[test]
fn the_tests_of_the_list_exist() {
    let files = [
        ("p", include_str!("../packet/tests.rs")),
        ("s", include_str!("../settings/tests.rs")),
        ("r", include_str!("tests/rfc.rs")),
        ("o", include_str!("tests/ours.rs")),
        ("f", include_str!("../frame.rs")),
        (
            "d",
            include_str!("../../../../../tests/datapath/neighbours.rs"),
        ),
        ("k", include_str!("../../../../../tests/vrrp_kill.rs")),
        ("v", include_str!("../../../../../tests/vrrp.rs")),
    ];
    let list = include_str!("tests.rs").lines();
    let named = list.filter_map(|line| line.strip_prefix("//!   ")?.split('`').nth(1));
    let mut count = 0;
    for (file, name) in named.filter_map(|name| name.split_once("::")) {
        let (_, text) = files.iter().find(|(short, _)| *short == file).unwrap();
        // Some are in a module of their file.
        let text = text.replace("\n    ", "\n");
        assert!(text.contains(&format!("#[test]\nfn {name}()")), "{name}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}
