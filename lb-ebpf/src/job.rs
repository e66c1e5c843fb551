//! A parsed packet, and how it gets from one program to the next.
//!
//! The entry program parses; what takes more than the fast path is another program's work, called
//! by a tail call, which keeps the frame and loses the stack. So the packet waits in a per-CPU
//! value meanwhile. That the verifier forgets everything about it there is as welcome: each stage
//! is checked once, not once for each way through the parser.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{BackendId, FlowKey, PROTOCOL_UDP, Service, Stage},
    icmp,
    parse::{Family, Fragmentation, TCP_FIN, TCP_RST},
    verdict::Verdict,
};

use crate::{conntrack::Signal, maps, packet::Frame, select::Target};

/// A parsed packet on its way. Offsets are bytes from the start of the frame.
pub struct Packet<'a> {
    pub context: &'a XdpContext,
    pub frame: Frame,
    pub family: Family,
    /// Where the network header is.
    pub network: usize,
    /// Where the transport header is.
    pub transport: usize,
    /// Where the transport's payload is.
    pub payload: usize,
    /// Where the IP packet ends.
    pub end: usize,
    pub ttl: u8,
    pub tcp_flags: u8,
    pub fragmentation: Fragmentation,
    pub flow: FlowKey,
}

/// A packet between two programs.
#[repr(C)]
pub struct Job {
    flow: FlowKey,
    /// The service that the packet is for, if it is for one.
    pub service: Service,
    network: u32,
    transport: u32,
    payload: u32,
    end: u32,
    family: u32,
    ttl: u32,
    tcp_flags: u32,
    fragmentation: u32,
    /// The backend that was chosen for it: a [`BackendId`], for stages after the choice.
    backend: u32,
    /// What it is answered with: 0 for [`Answer::TimeExceeded`], else the MTU of [`Answer::TooBig`].
    answer: u32,
    /// Whether a flow starts with it, for stages after the choice.
    starts: u32,
}

/// Where a TCP segment is in its connection (RFC 9293, 3.4).
#[derive(Clone, Copy)]
pub struct Numbers {
    /// Of its first byte.
    pub sequence: u32,
    /// Behind its last one; a FIN counts as one.
    pub end: u32,
    /// What it acknowledges.
    pub acknowledged: u32,
}

/// What a packet's sender is told.
#[derive(Clone, Copy)]
pub enum Answer {
    /// It had no hop left.
    TimeExceeded,
    /// It is larger than `mtu`, the size in bytes of the largest IP packet that is forwarded.
    TooBig { mtu: u16 },
}

impl Packet<'_> {
    /// Goes on in another program.
    ///
    /// # Errors
    /// Always: the verdict is that of a call that failed. One that succeeds does not come back.
    #[inline(always)]
    pub fn call(&self, stage: Stage, service: &Service) -> Result<Verdict, Verdict> {
        let job = maps::job().ok_or(Verdict::DropInternal)?;
        self.store(job);
        job.service = *service;
        Err(maps::call(self.context, stage))
    }

    /// As [`Self::call`], with the backend that was chosen; `first` if a flow starts here.
    ///
    /// # Errors
    /// As for [`Self::call`].
    #[inline(always)]
    pub fn call_with(
        &self,
        stage: Stage,
        service: &Service,
        target: &Target,
        first: bool,
    ) -> Result<Verdict, Verdict> {
        let job = maps::job().ok_or(Verdict::DropInternal)?;
        job.backend = u32::from(target.id.0);
        job.starts = u32::from(first);
        self.call(stage, service)
    }

    /// Answers the packet to its sender, in a stage of its own; a service's packet counts as dropped
    /// by it. Whether the packet may be fragmented instead is the caller's to know.
    ///
    /// # Errors
    /// As for [`Self::call`].
    #[inline(always)]
    pub fn answer(&self, service: &Service, answer: Answer) -> Result<Verdict, Verdict> {
        maps::job().ok_or(Verdict::DropInternal)?.answer = match answer {
            Answer::TimeExceeded => 0,
            Answer::TooBig { mtu } => u32::from(mtu),
        };
        self.call(Stage::Answer, service)
    }

    #[inline(always)]
    fn store(&self, job: &mut Job) {
        job.flow = self.flow;
        job.network = self.network as u32;
        job.transport = self.transport as u32;
        job.payload = self.payload as u32;
        job.end = self.end as u32;
        job.family = match self.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        job.ttl = u32::from(self.ttl);
        job.tcp_flags = u32::from(self.tcp_flags);
        job.fragmentation = match self.fragmentation {
            Fragmentation::None => 0,
            Fragmentation::First => 1,
            Fragmentation::Later => 2,
        };
    }

    /// What the packet says about its flow.
    #[inline(always)]
    pub fn signal(&self) -> Signal {
        let has_payload = self.payload < self.end;
        Signal::new(self.flow.protocol(), self.tcp_flags, has_payload)
    }

    /// The numbers of a TCP segment; `None` if it is cut short.
    #[inline(always)]
    pub fn numbers(&self) -> Option<Numbers> {
        let mut frame = self.frame;
        let [a, b, c, d, e, f, g, h] = *frame.bytes::<8>(self.transport + 4)?;
        let sequence = u32::from_be_bytes([a, b, c, d]);
        let length = self.end.wrapping_sub(self.payload) as u32;
        let fin = u32::from(self.tcp_flags & TCP_FIN != 0);
        Some(Numbers {
            sequence,
            end: sequence.wrapping_add(length + fin),
            acknowledged: u32::from_be_bytes([e, f, g, h]),
        })
    }

    /// Whether an unknown flow starts with this packet: UDP has no sign of it but being unknown.
    #[inline(always)]
    pub fn is_first(&self, signal: Signal) -> bool {
        signal.starts || self.flow.protocol() == PROTOCOL_UDP
    }

    /// Whether its sender may be told anything: not if it names more than one host, nor if the link
    /// brought it to more than this one (RFC 1122, 3.2.2).
    #[inline(always)]
    pub fn may_be_answered(&self) -> bool {
        // Not the packet's own: the compiler would infer from bytes further on that these are there, which
        // the verifier does not.
        let mut frame = Frame::new(self.context);
        let group = frame.bytes::<2>(0).map(|[first, _]| *first & 1);
        group == Some(0) && icmp::may_be_answered(&self.flow.source())
    }

    /// Counts the packet for its backend.
    #[inline(always)]
    pub fn count(&self, target: &Target, first: bool) {
        let length = self.frame.length();
        maps::count_backend(target.id, |traffic| {
            traffic.packets += 1;
            traffic.bytes += length;
            traffic.new_connections += u64::from(first);
        });
    }

    /// Counts that the client ends a flow that is not recorded, if it does: each FIN and RST, as
    /// nobody remembers whether it is the first.
    #[inline(always)]
    pub fn count_end(&self, target: &Target) {
        if self.tcp_flags & (TCP_FIN | TCP_RST) == 0 {
            return;
        }
        let reset = self.tcp_flags & TCP_RST != 0;
        maps::count_backend(target.id, |traffic| {
            traffic.closed += 1;
            traffic.resets += u64::from(reset);
        });
    }

    /// Counts that the packet's flow could not be recorded.
    #[inline(always)]
    pub fn count_untracked(&self, target: &Target) {
        maps::count_backend(target.id, |traffic| traffic.untracked += 1);
    }
}

impl<'a> Packet<'a> {
    /// The packet that another program has called this one with.
    #[inline(always)]
    pub fn resume(context: &'a XdpContext, job: &Job) -> Self {
        Self {
            context,
            frame: Frame::new(context),
            family: if job.family == 4 {
                Family::V4
            } else {
                Family::V6
            },
            network: job.network as usize,
            transport: job.transport as usize,
            payload: job.payload as usize,
            end: job.end as usize,
            ttl: job.ttl as u8,
            tcp_flags: job.tcp_flags as u8,
            fragmentation: match job.fragmentation {
                0 => Fragmentation::None,
                1 => Fragmentation::First,
                _ => Fragmentation::Later,
            },
            flow: job.flow,
        }
    }
}

impl Job {
    /// The backend that was chosen.
    ///
    /// # Errors
    /// [`Verdict::DropNoBackend`] if it has gone since.
    #[inline(always)]
    pub fn target(&self) -> Result<Target, Verdict> {
        Target::find(BackendId(self.backend as u16)).ok_or(Verdict::DropNoBackend)
    }

    /// What the packet is to be answered with.
    #[inline(always)]
    pub fn answer(&self) -> Answer {
        match self.answer as u16 {
            0 => Answer::TimeExceeded,
            mtu => Answer::TooBig { mtu },
        }
    }

    /// Whether a flow starts with the packet.
    #[inline(always)]
    pub const fn starts_flow(&self) -> bool {
        self.starts != 0
    }
}
