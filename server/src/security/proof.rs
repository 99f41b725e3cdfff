//! How nodes prove to each other that they know the cluster's secret without sending it; and the password that is derived
//! from the secret.
//!
//! A proof is the HMAC-SHA256, keyed by the secret, of a statement: which side proves it, the cluster, the two nodes, and a
//! nonce of each side. So it is worth nothing on another connection, for another node, in another cluster or in the other
//! direction. It does not protect what follows on the connection: without TLS, whoever can change the traffic can go on
//! in the place of a node that has proven itself.

use hmac::digest::Key;
use hmac::{Hmac, KeyInit, Mac};
use qluster_consensus::model::NodeId;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// A number that a side uses for one connection only: 122 random bits.
pub(crate) type Nonce = [u8; 16];
/// Shows that its sender knows a secret.
pub(crate) type Proof = [u8; 32];

/// Whose proof it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Of the node that made the connection.
    Dialing,
    /// Of the node that took it.
    Accepting,
}

/// What is proven: which connection this is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Statement {
    pub(crate) cluster: Uuid,
    /// The dialing node.
    pub(crate) from: NodeId,
    /// The accepting one.
    pub(crate) to: NodeId,
    pub(crate) dialing: Nonce,
    pub(crate) accepting: Nonce,
}

/// A nonce that was never used before.
pub(crate) fn nonce() -> Nonce {
    Uuid::new_v4().into_bytes()
}

impl Statement {
    /// What is signed. All parts but the first have a fixed length, so no two statements look the same.
    fn bytes(&self, role: Role) -> Vec<u8> {
        let role: &[u8] = match role {
            Role::Dialing => b"qluster peer 1 dialing  ",
            Role::Accepting => b"qluster peer 1 accepting",
        };
        let (from, to) = (self.from.0.to_be_bytes(), self.to.0.to_be_bytes());
        [role, self.cluster.as_bytes(), &from, &to, &self.dialing, &self.accepting].concat()
    }
}

pub(super) fn prove(secret: &SecretString, role: Role, statement: &Statement) -> Proof {
    hmac(secret, &statement.bytes(role))
}

/// Whether one of `proofs` is by `secret`.
pub(super) fn any_holds(proofs: &[Proof], secret: &SecretString, role: Role, statement: &Statement) -> bool {
    let expected = prove(secret, role, statement);
    proofs.iter().fold(false, |found, proof| found | bool::from(proof.ct_eq(&expected)))
}

/// The password of the replication role of `cluster`. Whoever learns it does not learn the secret.
pub(super) fn replication_password(secret: &SecretString, cluster: Uuid) -> SecretString {
    let bytes = hmac(secret, &[b"qluster replication password 1", cluster.as_bytes().as_slice()].concat());
    SecretString::from(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn hmac(secret: &SecretString, message: &[u8]) -> [u8; 32] {
    // The key is a hash of the secret, with the length of a block: such a key cannot be refused.
    let mut key = Key::<Hmac<Sha256>>::default();
    key[..32].copy_from_slice(&Sha256::digest(secret.expose_secret()));
    let mut mac = Hmac::<Sha256>::new(&key);
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        let (dialing, accepting) = ([1; 16], [2; 16]);
        Statement { cluster: Uuid::from_u128(7), from: NodeId(1), to: NodeId(2), dialing, accepting }
    }

    #[test]
    fn a_proof_is_of_one_secret_one_side_and_one_connection() {
        let (secret, other) = (SecretString::from("one"), SecretString::from("two"));
        let proof = prove(&secret, Role::Dialing, &statement());
        let holds = |secret, role, statement: Statement| any_holds(&[[0; 32], proof], secret, role, &statement);
        assert!(holds(&secret, Role::Dialing, statement()));
        assert!(!holds(&other, Role::Dialing, statement()));
        assert!(!holds(&secret, Role::Accepting, statement()));
        for changed in [
            Statement { cluster: Uuid::from_u128(8), ..statement() },
            Statement { from: NodeId(3), ..statement() },
            Statement { to: NodeId(3), ..statement() },
            Statement { from: NodeId(2), to: NodeId(1), ..statement() },
            Statement { dialing: [3; 16], ..statement() },
            Statement { accepting: [3; 16], ..statement() },
        ] {
            assert!(!holds(&secret, Role::Dialing, changed), "{changed:?}");
        }
        assert!(!any_holds(&[], &secret, Role::Dialing, &statement()));
    }

    #[test]
    fn a_password_is_of_one_secret_and_one_cluster() {
        let password = |secret: &str, cluster| {
            let password = replication_password(&SecretString::from(secret), Uuid::from_u128(cluster));
            password.expose_secret().to_owned()
        };
        assert_eq!(password("one", 1), password("one", 1));
        assert_eq!(password("one", 1).len(), 64);
        assert!(password("one", 1) != password("one", 2) && password("one", 1) != password("two", 1));
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(nonce(), nonce());
    }
}
