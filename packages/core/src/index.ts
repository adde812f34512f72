export type { Balancer } from './balancer.ts'
export { isPickable } from './balancer.ts'
export type { BodyFlow, BodyReader, RequestBody } from './body.ts'
export type { Clock } from './clock.ts'
export { readClock } from './clock.ts'
export type { Candidate, ChoiceBy, Decision, Exclusion } from './decision.ts'
export type { ErrorCode, ErrorKind, ErrorPhase, ErrorSource, ProxyErrorOptions, TerminationReason } from './errors.ts'
export { errorTable, ProxyError } from './errors.ts'
export type { AttemptOutcome, Exchange, ExchangeLocals, ForkRequest, Outcome } from './exchange.ts'
export type { FailureMemoryOptions } from './failure-memory.ts'
export { failureMemory } from './failure-memory.ts'
export type { ForwardingOptions, TrustCheck, TrustedProxy } from './forwarded.ts'
export type { HeaderRules, HeaderValue } from './header-rules.ts'
export { HeaderList } from './headers.ts'
export type { DownOptions, HealthControl, HealthPolicy, UpstreamChange } from './health.ts'
export type { InjectedRequest, InjectedResponse } from './inject.ts'
export type { Duration, NumberRange, OptionProblem, Size } from './options.ts'
export { OptionReader, OptionsError, parseDuration, parseSize } from './options.ts'
export type { Pool } from './pool.ts'
export { createPool } from './pool.ts'
export type { LeaveOptions, PoolHealthReport, PoolOptions, PoolStats } from './pool-options.ts'
export type { UpstreamSource } from './pool-source.ts'
export type { AttachableServer, CloseOptions, ProxyHealth, ProxyStats, ReverseProxy } from './proxy.ts'
export { createProxy } from './proxy.ts'
export type { ForwardOptions, ProxyOptions, RouteOptions, TimeoutOptions } from './proxy-options.ts'
export { ReplyFields } from './reply-fields.ts'
export type { HedgeOptions, RetryBudgetOptions, RetryCondition, RetryOptions } from './retry.ts'
export type { RoundRobinOptions } from './round-robin.ts'
export { roundRobin } from './round-robin.ts'
export type { HostHeader, Route, RouteMatch } from './route.ts'
export type {
  BodyTap,
  HeaderFields,
  Hooks,
  MaybePromise,
  ProxyResponse,
  Reply,
  RequestTap,
  Stage,
  StageContext,
  StageHandler,
  StageLike,
} from './stage.ts'
export type { AddressCheck } from './transport/address-check.ts'
export { checkedLookup, refusedHost } from './transport/address-check.ts'
export type { ConnectPhases } from './transport/connect-phases.ts'
export type { HttpProxyTransportOptions } from './transport/http-proxy.ts'
export { httpProxyTransport } from './transport/http-proxy.ts'
export type { UpstreamTlsOptions } from './transport/tls.ts'
export type {
  PendingTunnel,
  ResponseSink,
  Transport,
  TransportTimeouts,
  UpgradeRequest,
  UpgradeSink,
  UpstreamCall,
  UpstreamRequest,
} from './transport/transport.ts'
export type { UndiciTransportOptions } from './transport/undici.ts'
export { undiciTransport } from './transport/undici.ts'
export type { Upstream, UpstreamInput, UpstreamOptions, UpstreamState } from './upstream.ts'
