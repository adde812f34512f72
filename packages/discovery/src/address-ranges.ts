/**
 * Ranges with names, from the special-purpose registries of IANA (RFC 6890 and its updates). Those in `specialRanges` are hardly ever the
 * address of a server that discovery should find; private ranges are, in most networks, exactly that, so they are not among them.
 */
export type RangeName =
  | 'broadcast'
  | 'documentation'
  | 'link-local'
  | 'loopback'
  | 'metadata'
  | 'multicast'
  | 'private'
  | 'reserved'
  | 'shared'
  | 'unspecified'

export const namedRanges: Readonly<Record<RangeName, readonly string[]>> = {
  broadcast: ['255.255.255.255'],
  documentation: ['192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24', '2001:db8::/32', '3fff::/20'],
  'link-local': ['169.254.0.0/16', 'fe80::/10'],
  loopback: ['127.0.0.0/8', '::1'],
  // The services that give credentials to whoever asks from the right machine: AWS (EC2, ECS, EKS), Azure, Google, Alibaba, Oracle, Scaleway.
  metadata: [
    '169.254.169.254',
    '169.254.170.2',
    '169.254.170.23',
    '169.254.42.42',
    '168.63.129.16',
    '100.100.100.200',
    '192.0.0.192',
    'fd00:ec2::254',
    'fd00:ec2::23',
    'fd20:ce::254',
    'fd00:42::42',
  ],
  multicast: ['224.0.0.0/4', 'ff00::/8'],
  private: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'],
  // IETF protocol assignments, benchmarking, relays of 6to4, class E; discard-only, local NAT64 (its embedding is not known), site-local.
  reserved: ['192.0.0.0/24', '192.88.99.0/24', '198.18.0.0/15', '240.0.0.0/4', '100::/64', '64:ff9b:1::/48', 'fec0::/10'],
  // Between a provider and its customers, RFC 6598; some clouds number containers from it.
  shared: ['100.64.0.0/10'],
  unspecified: ['0.0.0.0/8', '::'],
}

export const specialRanges: readonly RangeName[] = [
  'broadcast',
  'documentation',
  'link-local',
  'loopback',
  'metadata',
  'multicast',
  'reserved',
  'unspecified',
]
