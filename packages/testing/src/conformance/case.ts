/** A test of any runner: it passes when `run` resolves. */
export interface ConformanceCase {
  readonly name: string
  run(): Promise<void>
}
