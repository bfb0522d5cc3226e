import { expect, it } from 'vitest';
import { tensor } from '../graph/tensor.js';
import { runEmitted } from '../../tests/support/onnx-session.js';
import { cos, sin } from './build.js';
import { newGraph } from './registry.js';

it('a device with imprecise shaders gets sine and cosine of positions as the processor has them', async () => {
  const steps = Array.from({ length: 4001 }, (_, i) => i - 2000);
  const angles = Float32Array.from([
    ...steps.map((i) => (i / 2000) * 2 * Math.PI),
    ...steps.map((i) => i * (Math.PI / 4)),
    ...steps.map((i) => i * 50 + 0.1),
  ]);
  const graph = newGraph();
  const x = graph.input('x', 'float32', ['N']);
  graph.output('sin', sin(x));
  graph.output('cos', cos(x));
  const found = await runEmitted(graph, 'webgpu', { x: tensor('float32', [angles.length], angles) });
  for (const [name, truth] of Object.entries({ sin: Math.sin, cos: Math.cos })) {
    const apart = Array.from(angles, (angle, i) => Math.abs(Number(found[name]!.data[i]) - truth(angle)));
    expect(Math.max(...apart), name).toBeLessThan(2e-7);
  }
});
