// What the programs share: two nodes to run on, and checks.
import assert from 'node:assert/strict'

const [host, a, b] = process.argv.slice(2)
if (!b) {
  console.error('usage: node PROGRAM host portA portB')
  process.exit(2)
}

/** The two nodes. */
export const nodes = [
  { host, port: Number(a) },
  { host, port: Number(b) },
]

/** Runs a named check and prints that it passed; a failure ends the program. */
export async function check(name, fn) {
  const timer = setTimeout(() => {
    console.error(`not ok ${name}: it took longer than 60 s`)
    process.exit(1)
  }, 60_000)
  try {
    await fn()
    console.log(`ok ${name}`)
  } catch (e) {
    console.error(`not ok ${name}:`, e)
    process.exit(1)
  }
  clearTimeout(timer)
}

/** Waits until fn returns what is wanted. */
export async function eventually(want, fn) {
  let got
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    got = await fn()
    try {
      assert.deepEqual(got, want)
      return
    } catch {
      await new Promise((r) => setTimeout(r, 10))
    }
  }
  assert.deepEqual(got, want)
}

export { assert }
