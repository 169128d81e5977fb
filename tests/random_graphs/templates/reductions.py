"""Entries put together: sums, means, maxima, norms, sorts, pools."""

from __future__ import annotations

from tests.random_graphs.templates.table import expressions

expressions(
    "reduction",
    """
    {x}.mean(-1, keepdim=True) ; {x}.sum(-1) ; {x}.mean(1) ; {x}.sum(1) ; {x}.amax(1) ; {x}.amax(-1, True) ;
    {x}.max(-1).values ; {x}.min(1, keepdim=True).values ; torch.logsumexp({x}, -1) ; {x}.norm(dim=-1) ;
    {x}.norm(dim=1, keepdim=True) ; {x}.std(-1) ; {x}.var(1) ; {x}.cumsum(-1) ; {x}.cumsum(1) ;
    {x}.sort(-1).values ; {x}.topk(2, -1).values ; {x}.median(-1).values ; {x}.prod(-1) ;
    {x}.kthvalue(1, -1).values ; {x}.cummax(-1).values ; F.max_pool1d({x}, 2) ; F.max_pool2d({x}, 2) ;
    F.avg_pool2d({x}, 2) ; F.avg_pool1d({x}, 2, padding=1) ; F.adaptive_avg_pool1d({x}, 1) ;
    F.adaptive_avg_pool2d({x}, 2) ; F.adaptive_max_pool2d({x}, 1) ; F.max_pool2d({x}, 2, padding=1) ;
    F.avg_pool2d({x}, 3, 2, 1, True) ; F.avg_pool2d({x}, 3, 2, 1, False, False) ; F.lp_pool1d({x}, 2.0, 2) ;
    F.interpolate({x}, scale_factor=2.0, mode='linear') ; F.local_response_norm({x}, 2) ;
    F.interpolate({x}, size=(3, 3), mode='bilinear') ; F.interpolate({x}, size=(3, 3), mode='bicubic') ;
    F.pad({x}, (1, 1), mode='reflect') ; F.pad({x}, (1, 1), mode='circular') ;
    F.pad({x}, (1, 1), mode='replicate') ; F.fold(F.unfold({x}, 2), (4, 4), 2) ;
    torch.logcumsumexp({x}, -1) ; {x}.abs().amax(-1, True) * {x} ; {x}.diff(dim=-1) ; {x} * {x}.mean(0) ;
    {x} + {x}.sum(0) ; {x} * len({x}) ; {x}.sum(0) / len({x}) + {x} ; torch.cdist({x}, {x}) ; {x} @ {x}.mT ;
    {x}.flatten(1) @ {x}.flatten(1).T @ {x}.flatten(1) ; torch.trapezoid({x}) ; {x}.nanmean(-1) ;
    {x}.mean((1, -1)) ; {x}.mean([-1]) ; {x} - {x}.mean((0, -1), keepdim=True) ;
    torch.std_mean({x}, -1)[0] ; torch.var_mean({x}, -1)[1] ; torch.aminmax({x}, dim=-1).max ;
    {x}.logsumexp((1, -1)) ; {x}.square().sum(-1).sqrt() ; torch.linalg.vector_norm({x}, 1, -1) ;
    torch.linalg.vector_norm({x}, float('inf'), -1) ; torch.linalg.vector_norm({x}, 0, -1) ;
    {x}.mode(-1).values * 0 + {x}.sum(-1) ;
""",
)
