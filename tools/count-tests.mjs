/** Prints `N passed, M failed` from a JSON report of vitest; a file that fails as a whole counts as one failure. */
import { readFileSync } from 'node:fs';

const [file] = process.argv.slice(2);
let passed = 0;
let failed = 0;
for (const { status, assertionResults } of readReport(file)) {
  const failures = assertionResults.filter((test) => test.status === 'failed').length;
  passed += assertionResults.filter((test) => test.status === 'passed').length;
  failed += status === 'failed' ? Math.max(1, failures) : failures;
}
console.log(`${passed} passed, ${failed} failed`);
if (failed > 0 || passed === 0) process.exitCode = 1;

function readReport(path) {
  const text = readFileSync(path, 'utf8');
  // A runner that crashed has written nothing.
  return text === '' ? [{ status: 'failed', assertionResults: [] }] : JSON.parse(text).testResults;
}
