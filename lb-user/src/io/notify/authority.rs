//! A certificate authority for tests, and servers that it vouches for.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

/// One that nobody trusts who does not have its file.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    file: PathBuf,
}

impl Authority {
    /// The file is called after `test`, and is gone with it.
    pub(super) fn new(test: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        // Who issued a certificate is found by name.
        let names = &mut parameters.distinguished_name;
        names.push(DnType::CommonName, test);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let name = format!("tidegate-{test}-{}.pem", std::process::id());
        let file = std::env::temp_dir().join(name);
        fs::write(&file, certificate.pem()).unwrap();
        Self {
            issuer: Issuer::new(parameters, key),
            file,
        }
    }

    /// The key by which a configuration trusts it.
    pub(super) fn key(&self) -> String {
        format!("ca_file = \"{}\"\n", self.file.display())
    }

    /// TLS of a server of that name or address.
    pub(super) fn server(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.file));
    }
}
