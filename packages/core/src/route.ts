export interface Route {
  readonly name: string
}
