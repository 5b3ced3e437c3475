//! The door for the fuzz target of packets.

use bytes::{Bytes, BytesMut};

use super::Wire;
use super::endpoint::endpoints;
use super::failure::ServerError;
use super::login::{greeting, nonce_of, parsec_salt, sealed};
use crate::mysql::cursor::Cursor;
use crate::net::{Socket, Stream};

/// Bytes of a connection, and what each packet of them is at a login.
pub fn packets(data: &[u8]) {
    let Some(endpoint) = endpoints(&"mysql://u:p@h".into()).ok().and_then(|mut endpoints| endpoints.pop()) else {
        return;
    };
    let login = |packet: &[u8]| {
        let _ = (greeting(packet), nonce_of(packet), parsec_salt(packet), sealed(b"password\0", packet));
        let _ = ServerError::read(packet).classify(&endpoint, "fuzzing");
        let _ = Cursor(packet).until_zero();
    };
    login(data);
    let (stream, input) = (Stream::Plain(Socket::Lost), BytesMut::from(data));
    let mut wire = Wire { stream, input, begun: BytesMut::new(), number: 0, endpoint: endpoint.clone() };
    while let Ok(Some(packet)) = wire.arrived() {
        let packet: Bytes = packet;
        login(&packet);
    }
}
