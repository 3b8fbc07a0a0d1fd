//! How kubelets are reached, for logs, exec, attach and port-forward.

/// Whom the server trusts to be a kubelet, and who it is to them. All PEM.
#[derive(Clone, Debug)]
pub struct Kubelets {
    /// Authority of the kubelets' serving certificates.
    pub authority: Vec<u8>,
    /// The server's own certificate as a client.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}
