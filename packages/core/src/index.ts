export type { Balancer } from './balancer.ts'
export { isPickable } from './balancer.ts'
export type { BodyFlow, BodyReader, RequestBody } from './body.ts'
export type { ErrorCode, ErrorKind, ErrorPhase, ErrorSource, ProxyErrorOptions, TerminationReason } from './errors.ts'
export { errorTable, ProxyError } from './errors.ts'
export type { AttemptOutcome, Exchange, ExchangeLocals, Outcome } from './exchange.ts'
export { HeaderList } from './headers.ts'
export type { Duration, NumberRange, OptionProblem, Size } from './options.ts'
export { OptionReader, OptionsError, parseDuration, parseSize } from './options.ts'
export type {
  BodyTap,
  HeaderFields,
  Hooks,
  MaybePromise,
  ProxyResponse,
  Reply,
  Stage,
  StageContext,
  StageHandler,
  StageLike,
} from './stage.ts'
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
export type { Upstream, UpstreamInput, UpstreamOptions, UpstreamState } from './upstream.ts'
