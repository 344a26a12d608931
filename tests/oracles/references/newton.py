"""Newton directions of a dense Hessian, in NumPy, written from the papers."""

import numpy as np


def truncated(hessian, g, damping, tolerance, max_matvecs):
    """Algorithm 7.1 of Nocedal and Wright, for (H + λI)z = g instead of −g; and its products, residual and flag."""
    a = hessian + damping * np.eye(len(g))
    z, r, d = np.zeros_like(g), -g, g
    enough, count = min(tolerance, np.sqrt(np.linalg.norm(g))) * np.linalg.norm(g), 0
    while count < max_matvecs and (count == 0 or np.linalg.norm(r) > enough):
        count += 1
        if d @ a @ d <= 0:
            return (g if count == 1 else z), count, np.linalg.norm(r), True
        alpha = r @ r / (d @ a @ d)
        z = z + alpha * d
        after = r + alpha * a @ d
        beta = after @ after / (r @ r)
        r, d = after, -after + beta * d
    return z, count, np.linalg.norm(r), False


def saddle_free(hessian, g, damping, m):
    """(|VᵀHV| + λI)⁻¹ on the span of g, Hg, …, H^(m−1) g, from a QR factorisation after each product."""
    v = (g / np.linalg.norm(g))[:, None]
    for _ in range(m - 1):
        v = np.linalg.qr(np.hstack([v, hessian @ v[:, -1:]]))[0]
    theta, s = np.linalg.eigh(v.T @ hessian @ v)
    u = v @ s @ np.diag(1 / (np.abs(theta) + damping)) @ s.T @ v.T @ g
    outside = hessian @ u - v @ v.T @ hessian @ u
    return u, np.linalg.norm(outside) / np.linalg.norm(g), (theta < 0).any()
