export { algorithms } from './algorithms.ts'
export type { Ban, BanList, BanListOptions, BanListStats, BanRule } from './ban-list.ts'
export { banList } from './ban-list.ts'
export type { RateLimitStoreCase, StoreUnderTest } from './conformance.ts'
export { rateLimitStoreConformance } from './conformance.ts'
export type { BanEvent, RateLimitDecision, RateLimitStoreFailure } from './events.ts'
export type { ExemptOption } from './exempt.ts'
export type { StoreErrorAction } from './guarded-store.ts'
export type { InflightLimitOptions, InflightLimitStage, InflightLimitStats } from './inflight-limit.ts'
export { inflightLimit } from './inflight-limit.ts'
export type { HeaderKey, KeyFunction, KeyOption, KeyPart } from './key.ts'
export type { Count, KeyCounters, KeyCountersOptions, KeyCountersStats, KeyCounts, KeyCountsOrder } from './key-counters.ts'
export { keyCounters } from './key-counters.ts'
export type { Algorithm, AlgorithmName, Limit, LimitState, LimitStep, Verdict } from './limit.ts'
export type {
  BucketLimit,
  CostFunction,
  LeakyLimit,
  LimitBase,
  LimitOptions,
  NamedLimit,
  SettleFunction,
  WindowLimit,
} from './limit-options.ts'
export type { MemoryStore, MemoryStoreOptions } from './memory-store.ts'
export { memoryStore } from './memory-store.ts'
export type { RateLimitStage, RateLimitStats } from './rate-limit.ts'
export { rateLimit } from './rate-limit.ts'
export type { ManyRateLimits, QuickRateLimit, RateLimitOptions, RateLimitStageOptions, Refusal } from './rate-limit-options.ts'
export type { Charge, RateLimitStore, StoreStats } from './store.ts'
