export type { Coding, RequestCoding, ResponseCoding } from './codings.ts'
export type { CompressStage, CompressStats } from './compress.ts'
export { compress } from './compress.ts'
export type { CompressOptions, OverloadOptions } from './compress-options.ts'
export type {
  CompressionDictionaries,
  CompressionDictionariesOptions,
  CompressionDictionariesStats,
  DictionaryOffer,
} from './compression-dictionaries.ts'
export { compressionDictionaries } from './compression-dictionaries.ts'
export type { DecompressOptions, DecompressStage, DecompressStats } from './decompress.ts'
export { decompress } from './decompress.ts'
export type { DecompressRequestsOptions, DecompressRequestsStage, DecompressRequestsStats } from './decompress-requests.ts'
export { decompressRequests } from './decompress-requests.ts'
export type { BrotliOptions, GzipOptions, ZstdOptions } from './encoder.ts'
export type { CompressDecision, CompressReason, DecompressReason } from './events.ts'
