//! What clients connect to: it passes them on to a node, as a balancer does, until it is told of
//! another one.

use std::{
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub(crate) struct Front {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

struct State {
    node: SocketAddr,
    /// Both ends of each connection.
    open: Vec<[TcpStream; 2]>,
}

impl Front {
    pub(crate) fn start(node: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let open = Vec::new();
        let state = Arc::new(Mutex::new(State { node, open }));
        let accepting = Arc::clone(&state);
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut state = accepting.lock().unwrap();
                // A client whose node is dead is cut off, and comes again.
                if let Ok(node) = TcpStream::connect(state.node) {
                    let ends = [client, node];
                    pass_on(&ends).unwrap();
                    state.open.push(ends);
                }
            }
        });
        Self { address, state }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all clients off, and passes them on to another node when they come again.
    pub(crate) fn redirect(&self, node: SocketAddr) {
        let mut state = self.state.lock().unwrap();
        state.node = node;
        for end in state.open.drain(..).flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn pass_on(ends: &[TcpStream; 2]) -> io::Result<()> {
    for end in ends {
        end.set_nodelay(true)?;
    }
    for (from, to) in [(0, 1), (1, 0)] {
        let (mut from, mut to) = (ends[from].try_clone()?, ends[to].try_clone()?);
        thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
    Ok(())
}
